// A new upper directory for a new base: it holds what the old one shows differently from the new layers, and nothing else, so
// that what is seen stays the same to the last byte. The old one isn't touched: files get a second name in the new one.
import { mkdirSync } from 'node:fs'
import type { Change } from '../../lib/change.ts'
import type { ChangeList } from '../../lib/change-list.ts'
import { wrapError } from '../../lib/errors.ts'
import {
  cstring,
  errno,
  linkat,
  mkdirat,
  mknodat,
  S_IFCHR,
  S_IFDIR,
  S_IFMT,
  statx,
  syncfs,
  SystemCallError,
} from '../../lib/fs/libc.ts'
import { closeTree, openTree } from '../../lib/fs/open-tree.ts'
import { openRooted, type DirNode, type Rooted } from '../../lib/fs/rooted.ts'
import type { Dialect } from '../../lib/layer/extraction.ts'
import { dress, lookOf } from './look.ts'

const slash = 0x2f

/**
 * Makes the directory `to` with those parts of the upper directory `from` that are among the changes, which are those
 * against the new base. With `durable`, what was made is on disk afterwards.
 */
export function rebaseUpper(
  from: string,
  to: string,
  changes: ChangeList,
  { dialect, durable }: { readonly dialect: Dialect; readonly durable: boolean },
): void {
  try {
    mkdirSync(to, { mode: 0o755 })
    const old = openTree(from)
    try {
      const made = openRooted(to)
      try {
        new Rebase(old, made, dialect).run(changes)
        if (durable) syncfs(made.fdOf(made.root))
      } finally {
        made.close()
      }
    } finally {
      closeTree(old)
    }
  } catch (error) {
    throw wrapError(error, to)
  }
}

class Rebase {
  readonly #old: Rooted
  readonly #made: Rooted
  readonly #dialect: Dialect
  readonly #directories: [old: DirNode, made: DirNode][] = []

  constructor(old: Rooted, made: Rooted, dialect: Dialect) {
    this.#old = old
    this.#made = made
    this.#dialect = dialect
    this.#directories.push([old.root, made.root])
  }

  run(changes: ChangeList): void {
    for (const { kind, rawPath } of changes) if (rawPath.length > 0) this.#take(kind, rawPath)
    for (const [old, made] of this.#directories) {
      const look = lookOf(this.#old.fdOf(old), this.#dialect)
      // widened for the while, if we don't override modes
      const { mode } = old.stat
      dress(this.#made.fdOf(made), { ...look, mode }, this.#dialect)
    }
  }

  #take(kind: Change['kind'], rawPath: Buffer): void {
    const end = rawPath.lastIndexOf(slash)
    const [old, made] = this.#directory(rawPath.subarray(0, Math.max(end, 0)))
    const name = cstring(rawPath.subarray(end + 1))
    if (kind === 'D') {
      mknodat(this.#made.fdOf(made), name, S_IFCHR, 0, 0)
      return
    }
    const stat = statx(this.#old.fdOf(old), name)
    if ((stat.mode & S_IFMT) === S_IFDIR) this.#directory(rawPath)
    else linkat(this.#old.fdOf(old), name, this.#made.fdOf(made), name)
  }

  /** A directory in both trees; made in the new one, if it isn't there yet. */
  #directory(rawPath: Buffer): [old: DirNode, made: DirNode] {
    let { root: old } = this.#old
    let { root: made } = this.#made
    for (const key of rawPath.length === 0 ? [] : rawPath.toString('latin1').split('/')) {
      const name = cstring(Buffer.from(key, 'latin1'))
      old = expectDirectory(this.#old, old, key)
      if (!this.#made.child(made, name, key)) {
        mkdirat(this.#made.fdOf(made), name, 0o700)
        this.#directories.push([old, expectDirectory(this.#made, made, key)])
      }
      made = expectDirectory(this.#made, made, key)
    }
    return [old, made]
  }
}

function expectDirectory(tree: Rooted, node: DirNode, key: string): DirNode {
  const name = cstring(Buffer.from(key, 'latin1'))
  const child = tree.child(node, name, key)
  if (!child) throw new SystemCallError(-errno.ENOTDIR, 'openat', name)
  return child
}
