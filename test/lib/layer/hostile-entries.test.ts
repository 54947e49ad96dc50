// Special files and orders of entries that are meant to confuse, as catalogued by their ids.
// Each sequence is tried as one layer, and as two cut at every place: what came from a lower layer is no less hostile.
import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { makeSandbox } from '../../support/extract.ts'
import type { TarMember } from '../../support/tar-builder.ts'
import { describeTree } from '../../support/tree.ts'

const isRoot = process.getuid?.() === 0

const file = (name: string | Buffer, body = '', rest: Partial<TarMember> = {}): TarMember => ({
  name,
  body,
  ...rest,
})
const dir = (name: string | Buffer, rest: Partial<TarMember> = {}): TarMember => ({
  name,
  type: 'directory',
  ...rest,
})
const link = (name: string, linkname: string | Buffer): TarMember => ({
  name,
  type: 'symlink',
  linkname,
})
const fifo = (name: string): TarMember => ({ name, type: 'fifo' })
const device = (name: string): TarMember => ({ name, type: 'char', devmajor: 1, devminor: 3 })

interface Case {
  readonly name: string
  readonly members: readonly TarMember[]
  /** What is in the rootfs afterwards: `path type` and what `describe` below adds. */
  readonly tree?: readonly string[]
  /** The code without its prefix. */
  readonly error?: string
  readonly cause?: string
  /** What must be there after an error. */
  readonly kept?: readonly string[]
  readonly root?: boolean
  readonly keepDirlinks?: boolean
}

const orders: Case[] = [
  {
    name: 'S04 a parent becomes a symlink between its children (CVE-2025-47290)',
    members: [file('d/a'), link('d', '../canary'), file('d/b')],
    tree: ['canary dir', 'canary/b file', 'd link -> ../canary'],
  },
  {
    name: 'S04 a grandparent becomes a symlink between',
    members: [file('d/e/a'), link('d', '/x'), file('d/e/b')],
    tree: ['d link -> /x', 'x dir', 'x/e dir', 'x/e/b file'],
  },
  {
    name: 'S04 a symlinked parent is pointed elsewhere',
    members: [
      dir('one'),
      dir('two'),
      link('l', 'one'),
      file('l/a'),
      link('l', 'two'),
      file('l/b'),
    ],
    tree: ['l link -> two', 'one dir', 'one/a file', 'two dir', 'two/b file'],
  },
  {
    name: 'S04 the target of a symlinked parent is replaced',
    members: [link('l', 'd/e'), file('l/a'), file('d'), file('l/b')],
    tree: ['d dir', 'd/e dir', 'd/e/b file', 'l link -> d/e'],
  },
  {
    name: 'S01 the last of several files counts',
    members: [file('a', 'one'), file('a', 'two')],
    tree: ['a file two'],
  },
  {
    name: 'S01 every type over every other',
    members: [
      file('a', 'x'),
      dir('a'),
      link('a', 'x'),
      fifo('a'),
      file('a', 'y'),
      link('a', 'z'),
    ],
    tree: ['a link -> z'],
  },
  {
    name: 'S01 a directory twice keeps its content',
    members: [dir('d'), file('d/x'), dir('d')],
    tree: ['d dir', 'd/x file'],
  },
  {
    name: 'S03 directories without permissions before their children',
    members: [dir('d', { mode: 0 }), dir('d/e', { mode: 0o555 }), file('d/e/x'), file('d/y')],
    tree: ['d dir', 'd/e dir', 'd/e/x file', 'd/y file'],
  },
  {
    name: 'S05 a directory that is not empty, then a file',
    members: [file('d/sub/x'), file('d', 'new')],
    tree: ['d file new'],
  },
  {
    name: 'S06 a file, then a directory',
    members: [file('d', 'old'), dir('d'), file('d/x')],
    tree: ['d dir', 'd/x file'],
  },
  {
    name: 'S07 children before their parents',
    members: [file('d/e/x'), dir('d/e'), dir('d')],
    tree: ['d dir', 'd/e dir', 'd/e/x file'],
  },
  {
    name: 'X04 a fifo, then a file of its name, is no wait',
    members: [fifo('p'), file('p', 'data')],
    tree: ['p file data'],
  },
  {
    name: 'X04 a file, then a fifo',
    members: [file('p', 'data'), fifo('p')],
    tree: ['p fifo'],
  },
  {
    name: 'X01 devices',
    root: true,
    members: [
      device('dev/null'),
      { name: 'b', type: 'block', devmajor: 4095, devminor: 1048575 },
    ],
    tree: ['b block 4095,1048575', 'dev dir', 'dev/null char 1,3'],
  },
  {
    name: 'X01 a device number that does not exist',
    members: [{ name: 'c', type: 'char', devmajor: 4096 }],
    error: 'INVALID_ENTRY',
  },
  {
    name: 'X03 a device 0:0 is an ordinary one here',
    root: true,
    members: [{ name: 'c', type: 'char' }],
    tree: ['c char 0,0'],
  },
  {
    name: 'X13 a contiguous file',
    members: [{ name: 'f', type: 'contiguous', body: 'x' }],
    tree: ['f file x'],
  },
  {
    name: 'A02 a uid that means "unchanged"',
    members: [file('f', '', { uid: 4294967295 })],
    error: 'INVALID_ENTRY',
  },
]

function describe(rootfs: string): string[] {
  return describeTree(rootfs, { times: false, xattrs: false, root: false }).map(line =>
    line.replace(/^(.*? (?:file|dir|link|char|block|fifo)) \d+ \d+:\d+/, '$1'),
  )
}

/** The bodies are compared by what a test can read: the hash of each is looked up. */
const bodies = new Map<string, string>()
for (const { members } of orders)
  for (const { body = '' } of members) bodies.set(hashOf(body.toString()), body.toString())

function hashOf(body: string): string {
  const dir = mkdtempSync(join(tmpdir(), 'koci-body-'))
  try {
    const sandbox = makeSandbox(dir)
    sandbox.apply([[file('b', body)]], { rootless: !isRoot })
    return describe(sandbox.rootfs)[0]?.replace('b file ', '') ?? ''
  } finally {
    rmSync(dir, { recursive: true })
  }
}

function readable(line: string): string {
  return line.replace(/ (\d+ [0-9a-f]{16})/, (_, body: string) => {
    const text = bodies.get(body) ?? body
    return text === '' ? '' : ` ${text}`
  })
}

for (const [group, cases] of Object.entries({ orders }))
  await t.test(`hostile ${group}`, async t => {
    for (const { name, members, tree, error, cause, kept, root, keepDirlinks } of cases) {
      const skip = root === true && !isRoot && 'needs root: mknod'
      await t.test(name, { skip }, async t => {
        for (let cut = members.length; cut > 0; cut -= 1) {
          const base = mkdtempSync(join(tmpdir(), 'koci-hostile-'))
          try {
            const sandbox = makeSandbox(base)
            const layers = [members.slice(0, cut), members.slice(cut)].filter(l => l.length > 0)
            const apply = () =>
              sandbox.apply(layers, {
                keepDirlinks: keepDirlinks ?? false,
                // an ordinary user can't give root what nobody has an entry for
                rootless: !isRoot,
              })
            const label = `cut at ${cut} of ${members.length}`
            if (error === undefined) apply()
            else
              t.throws(
                apply,
                {
                  code: `ERR_KOCI_${error}`,
                  ...(cause === undefined ? {} : { cause: { code: cause } }),
                },
                label,
              )
            if (!isRoot) execFileSync('chmod', ['-R', 'u+rwX', sandbox.rootfs])
            const expected = tree ?? kept
            if (expected !== undefined)
              t.strictSame(describe(sandbox.rootfs).map(readable), expected, label)
            t.notOk(sandbox.escaped(), `nothing outside was touched, ${label}`)
          } finally {
            rmSync(base, { recursive: true, force: true })
          }
        }
      })
    }
  })
