// Holds a tree to an mtree manifest of whatever origin: which paths differ, in what. Values are compared as what they
// mean and shown as go-mtree writes them.
import { createHash, type Hash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { createError } from '../errors.ts'
import { XattrReader } from '../fs/entry-xattrs.ts'
import {
  close,
  cstring,
  pread,
  readlinkat,
  S_IFBLK,
  S_IFCHR,
  S_IFDIR,
  S_IFIFO,
  S_IFLNK,
  S_IFMT,
  S_IFREG,
  S_IFSOCK,
  type CString,
  type Stat,
} from '../fs/libc.ts'
import { openStated, readStated, scanError, withReadable } from '../fs/open-file.ts'
import { withTree } from '../fs/open-tree.ts'
import type { DirNode, Rooted } from '../fs/rooted.ts'
import { trackedXattrs } from './extra.ts'
import { canonicalKeyword, type MtreeEntry } from './mtree-text.ts'
import { joinPath } from './record.ts'
import { bytesOf, leaveDirectory, listDirectory, statEntry, statRoot, Turns } from './scan.ts'
import { decodeVis, encodeVis, maxVisExpansion } from './vis.ts'

/** How one path differs. */
export interface MtreeDifference {
  readonly rawPath: Buffer
  readonly kind: 'modified' | 'missing' | 'extra'
  /** Of `modified`: what differs; what one side doesn't have is empty. */
  readonly keywords: ReadonlyArray<{ name: string; expected: string; found: string }>
}

/** What is compared. */
export interface MtreeCheckOptions {
  /** Only these keywords. @default those that the manifest has */
  readonly keywords?: readonly string[] | undefined
  /** These, too. */
  readonly moreKeywords?: readonly string[] | undefined
  readonly signal?: AbortSignal | undefined
  /** Told of keywords in the manifest that can't be checked. */
  readonly warn?: ((message: string) => void) | undefined
}

/** What umoci notes of every path. */
export const umociKeywords: readonly string[] = [
  'size',
  'type',
  'uid',
  'gid',
  'mode',
  'link',
  'nlink',
  'tar_time',
  'sha256digest',
  'xattr',
]

const digests: Readonly<Record<string, string>> = {
  md5digest: 'md5',
  ripemd160digest: 'ripemd160',
  sha1digest: 'sha1',
  sha256digest: 'sha256',
  sha384digest: 'sha384',
  sha512digest: 'sha512',
  sha512256digest: 'sha512-256',
}

/** Every keyword that can be checked, by its one name. */
export const knownKeywords: readonly string[] = [
  ...umociKeywords,
  'time',
  'uname',
  'gname',
  ...Object.keys(digests).filter(name => name !== 'sha256digest'),
]

/** What says something to the reader of a manifest, not of the file. */
const remarks = new Set(['optional', 'nochange', 'ignore', 'tags', 'contents'])

const typeNames: Readonly<Record<number, string>> = {
  [S_IFREG]: 'file',
  [S_IFDIR]: 'dir',
  [S_IFLNK]: 'link',
  [S_IFCHR]: 'char',
  [S_IFBLK]: 'block',
  [S_IFIFO]: 'fifo',
  [S_IFSOCK]: 'socket',
}

/**
 * Compares a tree with a manifest; differences are sorted bytewise by path. Types always count. A keyword that was asked
 * for and that the manifest doesn't have differs for every path to which it applies.
 * @throws {UsageError} ERR_KOCI_INVALID_OPTION for a keyword that can't be checked; {SystemError} ERR_KOCI_IO,
 * ERR_KOCI_ABORTED; {IntegrityError} ERR_KOCI_FILE_CHANGED
 */
export async function checkMtree(
  path: string,
  entries: readonly MtreeEntry[],
  options: MtreeCheckOptions = {},
): Promise<MtreeDifference[]> {
  const wanted = chooseKeywords(entries, options)
  return withTree(path, async root => {
    try {
      return await new Check(root, entries, wanted, new Turns(options.signal, path)).run()
    } catch (error) {
      throw scanError(error, path)
    }
  })
}

function chooseKeywords(
  entries: readonly MtreeEntry[],
  { keywords, moreKeywords = [], warn }: MtreeCheckOptions,
): ReadonlySet<string> {
  const asked = [...(keywords ?? []), ...moreKeywords].map(canonicalKeyword)
  for (const name of asked)
    if (!knownKeywords.includes(name))
      throw createError('INVALID_OPTION', {
        subject: `keyword ${name}`,
        reason: `it can not be checked - there are ${knownKeywords.join(', ')}`,
      })
  const wanted = new Set(['type', ...asked])
  if (keywords) return wanted
  for (const { keywords: own } of entries)
    for (const name of own.keys()) wanted.add(name.startsWith('xattr.') ? 'xattr' : name)
  for (const name of wanted) {
    if (knownKeywords.includes(name)) continue
    wanted.delete(name)
    if (!remarks.has(name)) warn?.(`keyword ${name} of the manifest can not be checked`)
  }
  return wanted
}

class Check {
  readonly #root: Rooted
  readonly #expected: Map<string, MtreeEntry>
  readonly #wanted: ReadonlySet<string>
  readonly #turns: Turns
  readonly #xattrs = new XattrReader()
  readonly #differences: MtreeDifference[] = []
  readonly #names = { uname: namesOf('/etc/passwd'), gname: namesOf('/etc/group') }

  constructor(
    root: Rooted,
    entries: readonly MtreeEntry[],
    wanted: ReadonlySet<string>,
    turns: Turns,
  ) {
    this.#root = root
    this.#expected = new Map(entries.map(entry => [entry.rawPath.toString('latin1'), entry]))
    this.#wanted = wanted
    this.#turns = turns
  }

  async run(): Promise<MtreeDifference[]> {
    const root = this.#root
    const here = cstring('.')
    await this.#compare(Buffer.alloc(0), root.fdOf(root.root), here, statRoot(root))
    const frames = [this.#enter(root.root, Buffer.alloc(0))]
    for (let frame = frames.at(-1); frame; frame = frames.at(-1)) {
      const name = frame.names[frame.next++]
      if (!name) {
        frames.pop()
        leaveDirectory(root, frame.node)
        continue
      }
      if (this.#turns.isDue()) await this.#turns.take()
      const stat = statEntry(root.fdOf(frame.node), name)
      if (!stat) continue
      const rawName = name.subarray(0, -1)
      const rawPath = joinPath(frame.rawPath, rawName)
      await this.#compare(rawPath, root.fdOf(frame.node), name, stat)
      if ((stat.mode & S_IFMT) !== S_IFDIR) continue
      const child = root.child(frame.node, name, rawName.toString('latin1'))
      if (!child) throw createError('FILE_CHANGED', { subject: rawPath })
      frames.push(this.#enter(child, rawPath))
    }
    for (const { rawPath, keywords } of this.#expected.values())
      if (!keywords.has('optional'))
        this.#differences.push({ rawPath, kind: 'missing', keywords: [] })
    return this.#differences.sort((a, b) => Buffer.compare(a.rawPath, b.rawPath))
  }

  #enter(node: DirNode, rawPath: Buffer) {
    const names = [...listDirectory(this.#root.fdOf(node))].map(
      ({ name }) => Buffer.from(name) as CString,
    )
    return { node, rawPath, names, next: 0 }
  }

  async #compare(rawPath: Buffer, dirfd: number, name: CString, stat: Stat): Promise<void> {
    const key = rawPath.toString('latin1')
    const expected = this.#expected.get(key)
    if (!expected) {
      this.#differences.push({ rawPath, kind: 'extra', keywords: [] })
      return
    }
    this.#expected.delete(key)
    const found = await this.#keywordsOf(dirfd, name, stat, expected.keywords)
    const names = new Set(['type', ...expected.keywords.keys(), ...found.keys()])
    const differing = [...names].flatMap(keyword => {
      const isWanted = this.#wanted.has(keyword.startsWith('xattr.') ? 'xattr' : keyword)
      if (!isWanted) return []
      const before = expected.keywords.get(keyword)
      const now = found.get(keyword)
      if (before === now || isSame(keyword, before, now, expected.keywords)) return []
      return [{ name: keyword, expected: before ?? '', found: now ?? '' }]
    })
    if (differing.length > 0)
      this.#differences.push({ rawPath, kind: 'modified', keywords: differing })
  }

  /** What is there, as go-mtree would write it. */
  async #keywordsOf(
    dirfd: number,
    name: CString,
    stat: Stat,
    expected: ReadonlyMap<string, string>,
  ): Promise<Map<string, string>> {
    const type = stat.mode & S_IFMT
    const found = new Map<string, string>()
    const set = (keyword: string, value: () => string): void => {
      if (this.#wanted.has(keyword)) found.set(keyword, value())
    }
    const seconds = stat.mtime / 1_000_000_000n - (stat.mtime % 1_000_000_000n < 0n ? 1n : 0n)
    const nanoseconds = stat.mtime - seconds * 1_000_000_000n
    set('type', () => typeNames[type] ?? '')
    set('size', () => String(stat.size))
    set('uid', () => String(stat.uid))
    set('gid', () => String(stat.gid))
    set('uname', () => this.#names.uname.get(stat.uid) ?? '')
    set('gname', () => this.#names.gname.get(stat.gid) ?? '')
    set('mode', () => `0${(stat.mode & 0o7777).toString(8)}`)
    set('nlink', () => String(stat.nlink))
    set('time', () => `${seconds}.${String(nanoseconds).padStart(9, '0')}`)
    set('tar_time', () => `${seconds}.000000000`)
    if (type === S_IFLNK)
      set('link', () => encode(readStated(bytesOf(name), () => readlinkat(dirfd, name))))
    if (type === S_IFREG) await this.#addDigests(dirfd, name, stat, found)
    if (this.#wanted.has('xattr')) this.#addXattrs(dirfd, name, stat, expected, found)
    return found
  }

  #addXattrs(
    dirfd: number,
    name: CString,
    stat: Stat,
    expected: ReadonlyMap<string, string>,
    found: Map<string, string>,
  ): void {
    const xattrs = withReadable(dirfd, name, stat, () => this.#xattrs.of(dirfd, name))
    const tracked = trackedXattrs(stat.mode, xattrs)
    for (const xattr of xattrs) {
      const keyword = `xattr.${encode(xattr[0])}`
      // manifests lack what go-mtree doesn't track; what they have counts
      if (tracked.includes(xattr) || expected.has(keyword))
        found.set(keyword, xattr[1].toString('base64'))
    }
  }

  async #addDigests(
    dirfd: number,
    name: CString,
    stat: Stat,
    found: Map<string, string>,
  ): Promise<void> {
    const hashes = Object.entries(digests).flatMap(([keyword, algorithm]): [string, Hash][] =>
      this.#wanted.has(keyword) ? [[keyword, createHash(algorithm)]] : [],
    )
    if (hashes.length === 0) return
    const fd = openStated(dirfd, name, stat, bytesOf(name))
    try {
      const buffer = Buffer.allocUnsafe(1 << 20)
      for (let at = 0; ;) {
        const length = pread(fd, buffer, buffer.length, at)
        if (length === 0) break
        at += length
        for (const [, hash] of hashes) hash.update(buffer.subarray(0, length))
        if (this.#turns.isDue(length >> 10)) await this.#turns.take()
      }
    } finally {
      close(fd)
    }
    for (const [keyword, hash] of hashes) found.set(keyword, hash.digest('hex'))
  }
}

function isSame(
  keyword: string,
  expected: string | undefined,
  found: string | undefined,
  all: ReadonlyMap<string, string>,
): boolean {
  // either form of the time says the other to the second
  if (expected === undefined && (keyword === 'time' || keyword === 'tar_time')) {
    const other = all.get(keyword === 'time' ? 'tar_time' : 'time')
    return other !== undefined && secondsOf(other) === secondsOf(found ?? '')
  }
  if (expected === undefined || found === undefined) return false
  switch (keyword) {
    case 'mode':
      return /^[0-7]+$/.test(expected) && parseInt(expected, 8) === parseInt(found, 8)
    case 'time':
      return nanosecondsOf(expected) === nanosecondsOf(found)
    case 'tar_time':
      return secondsOf(expected) === secondsOf(found)
    case 'link':
      return decoded(expected) === decoded(found)
    default:
      return keyword.endsWith('digest') && expected.toLowerCase() === found
  }
}

function secondsOf(time: string): string {
  return time.replace(/\..*/, '')
}

/** `1.5` is what go-mtree writes for 1.000000005, and others for 1.5: the fraction is a number. */
function nanosecondsOf(time: string): string {
  const [seconds = '', fraction = '0'] = time.split('.')
  return `${seconds}.${fraction.padStart(9, '0')}`
}

function decoded(text: string): string | undefined {
  const source = Buffer.from(text, 'latin1')
  const target = Buffer.alloc(source.length)
  const end = decodeVis(source, 0, source.length, target, 0)
  return end < 0 ? undefined : target.toString('latin1', 0, end)
}

function encode(bytes: Buffer): string {
  const target = Buffer.alloc(bytes.length * maxVisExpansion)
  const end = encodeVis(bytes, 0, bytes.length, target, 0)
  return target.toString('latin1', 0, end)
}

/** The host's names of users or groups. */
function namesOf(file: string): ReadonlyMap<number, string> {
  const names = new Map<number, string>()
  try {
    for (const line of readFileSync(file, 'utf8').split('\n')) {
      const [name = '', , id = ''] = line.split(':')
      if (/^\d+$/.test(id) && !names.has(Number(id))) names.set(Number(id), name)
    }
  } catch {
    // a machine without the file has no names
  }
  return names
}
