// Reads mtree text, koci's or umoci's, into a record. Works on the bytes line by line: no string per line or keyword.
// Strict where a lenient reading would pack something wrong: order, duplicates, names, numbers.
import { S_IFDIR, S_IFLNK, S_IFREG } from '../fs/libc.ts'
import { createError } from '../errors.ts'
import { Attributes, isBlank } from './mtree-keywords.ts'
import { RecordBuilder } from './record-builder.ts'
import type { TreeRecord } from './record.ts'
import { decodeVis } from './vis.ts'

/**
 * Parses mtree text that describes one tree from its root on, each directory's entries in mtree order, as koci and
 * umoci write it. The rows are rough: whole seconds, and only the extended attributes that umoci tracks.
 * Keywords it doesn't know are ignored; full paths as names aren't supported.
 * @throws {FormatError} ERR_KOCI_INVALID_MTREE with the line, 1 being the first
 */
export function parseMtree(bytes: Buffer, subject: string): TreeRecord {
  return new Parser(bytes, subject).parse()
}

/** A directory whose `..` hasn't come yet. */
interface OpenDirectory {
  readonly row: number
  /** Offsets of the last entry's name in the parser's names, to hold the order; empty before the first. */
  lastStart: number
  lastEnd: number
  /** Whether a subdirectory has come: only subdirectories may follow. */
  hasDirectories: boolean
}

const newline = 0x0a
const slash = 0x2f
const hash = 0x23
const equals = 0x3d
const backslash = 0x5c

class Parser {
  readonly #subject: string
  readonly #text: Buffer
  readonly #builder: RecordBuilder
  readonly #open: OpenDirectory[] = []
  readonly #set = new Attributes()
  readonly #entry = new Attributes()
  #names: Buffer
  #nameEnd = 0
  #line = 0
  #isDone = false

  constructor(text: Buffer, subject: string) {
    this.#text = text
    this.#subject = subject
    this.#names = Buffer.allocUnsafe(1024 + (text.length >> 2))
    this.#builder = new RecordBuilder(Math.max(16, text.length >> 7))
  }

  parse(): TreeRecord {
    const text = this.#text
    for (let at = 0, next = 0; at < text.length; at = next) {
      let end = text.indexOf(newline, at)
      if (end === -1) end = text.length
      next = end + 1
      this.#line++
      if (text[at] === hash && this.#isDirectoryComment(at, end))
        next = this.#endOfComment(next)
      else if (text[end - 1] === backslash) next = this.#joinedLine(at)
      else this.#parseLine(text, at, end)
    }
    if (this.#builder.count === 0) throw this.#invalid('it has no entries')
    while (this.#open.length > 0) this.#leave()
    return this.#builder.finish(0n)
  }

  /** Whether this is the comment with a directory's path, which umoci writes raw: it may go on in the next lines. */
  #isDirectoryComment(at: number, end: number): boolean {
    return this.#text[at - 1] === newline && this.#text[at - 2] === newline && end > at + 2
  }

  // What follows such a comment is a /set or the directory's own line.
  #endOfComment(from: number): number {
    const text = this.#text
    const firstLine = this.#line
    for (let at = from; at < text.length;) {
      let end = text.indexOf(newline, at)
      if (end === -1) end = text.length
      if (text[at] === slash || text.subarray(at, end).includes(' type=dir')) return at
      if (at === end || text[at] === 0x20 || text[at] === 0x09) break
      this.#line++
      at = end + 1
    }
    this.#line = firstLine
    return from
  }

  /** A line that ends in a backslash goes on in the next one. */
  #joinedLine(from: number): number {
    const text = this.#text
    const parts: Buffer[] = []
    let at = from
    for (;;) {
      let end = text.indexOf(newline, at)
      if (end === -1) end = text.length
      const goesOn = end > at && text[end - 1] === backslash
      parts.push(text.subarray(at, goesOn ? end - 1 : end))
      at = end + 1
      if (!goesOn || at >= text.length) break
    }
    const line = Buffer.concat(parts)
    this.#parseLine(line, 0, line.length)
    this.#line += parts.length - 1
    return at
  }

  #parseLine(text: Buffer, at: number, end: number): void {
    if (text[end - 1] === 0x0d) end--
    while (at < end && isBlank(text[at] as number)) at++
    if (at === end || text[at] === hash) return
    let nameEnd = at
    while (nameEnd < end && !isBlank(text[nameEnd] as number)) nameEnd++
    if (text[at] === slash) this.#parseSpecial(text, at, nameEnd, end)
    else if (nameEnd - at === 2 && text[at] === 0x2e && text[at + 1] === 0x2e) this.#leave()
    else this.#parseEntry(text, at, nameEnd, end)
  }

  #parseSpecial(text: Buffer, at: number, nameEnd: number, end: number): void {
    const word = text.toString('latin1', at, nameEnd)
    if (word === '/set') this.#parseKeywords(this.#set, text, nameEnd, end)
    else if (word === '/unset') this.#set.clear()
    else throw this.#invalid(`${word} is neither /set nor /unset`)
  }

  #leave(): void {
    const directory = this.#open.pop()
    if (!directory) throw this.#invalid('".." above the root')
    this.#builder.leave(directory.row)
    if (this.#open.length === 0) this.#isDone = true
  }

  #parseEntry(text: Buffer, at: number, nameEnd: number, end: number): void {
    if (this.#isDone) throw this.#invalid('an entry outside of the root directory')
    const entry = this.#entry
    entry.copy(this.#set)
    this.#parseKeywords(entry, text, nameEnd, end)
    if (entry.type === 0) throw this.#invalid('an entry without a type')

    const from = this.#nameEnd
    const to = this.#parseName(text, at, nameEnd)
    const isDirectory = entry.type === S_IFDIR
    const parent = this.#open.at(-1)
    if (parent) this.#checkOrder(parent, from, to, isDirectory)
    else if (!isDirectory) throw this.#invalid('the root is not a directory')

    const row = this.#builder.add(entry.row(), this.#names, from, to)
    this.#builder.setRough(row)
    if (entry.hash && entry.type === S_IFREG) this.#builder.setHash(row, entry.sha256)
    if (entry.link || entry.xattrs.length > 0)
      this.#builder.setExtra(row, {
        rawLinkname: entry.type === S_IFLNK ? entry.link : undefined,
        xattrs: entry.xattrs,
      })
    if (isDirectory) this.#open.push({ row, lastStart: to, lastEnd: to, hasDirectories: false })
  }

  /** Decodes a name behind the others and returns its end; the root's is empty. */
  #parseName(text: Buffer, at: number, end: number): number {
    const isRoot = this.#open.length === 0
    if (isRoot) {
      if (end - at !== 1 || text[at] !== 0x2e) throw this.#invalid('the first entry is not "."')
      return this.#nameEnd
    }
    const from = this.#nameEnd
    if (from + end - at > this.#names.length) {
      const names = Buffer.allocUnsafe(Math.max(this.#names.length * 2, from + end - at))
      this.#names.copy(names, 0, 0, from)
      this.#names = names
    }
    const names = this.#names
    const to = decodeVis(text, at, end, names, from)
    if (to === -1) throw this.#invalid('a malformed escape in the name')
    for (let i = from; i < to; i++)
      if (names[i] === slash || names[i] === 0)
        throw this.#invalid('a name that is not a single path component')
    if (isDots(names, from, to))
      throw this.#invalid('a name that is not a single path component')
    this.#nameEnd = to
    return to
  }

  #checkOrder(parent: OpenDirectory, from: number, to: number, isDirectory: boolean): void {
    const names = this.#names
    if (isDirectory && !parent.hasDirectories) {
      parent.hasDirectories = true
      parent.lastStart = parent.lastEnd = to
    } else if (!isDirectory && parent.hasDirectories)
      throw this.#invalid('an entry after the subdirectories')
    const hasLast = parent.lastEnd > parent.lastStart
    if (hasLast && names.compare(names, from, to, parent.lastStart, parent.lastEnd) >= 0)
      throw this.#invalid('an entry out of order, or twice')
    parent.lastStart = from
    parent.lastEnd = to
  }

  #parseKeywords(target: Attributes, text: Buffer, at: number, end: number): void {
    while (at < end) {
      while (at < end && isBlank(text[at] as number)) at++
      let valueEnd = at
      let valueStart = -1
      for (; valueEnd < end; valueEnd++) {
        const byte = text[valueEnd] as number
        if (isBlank(byte)) break
        if (byte === equals && valueStart === -1) valueStart = valueEnd + 1
      }
      if (valueStart !== -1) {
        const problem = target.parse(text, at, valueStart - 1, valueEnd)
        if (problem !== undefined) throw this.#invalid(problem)
      }
      at = valueEnd
    }
  }

  #invalid(reason: string): Error {
    return createError('INVALID_MTREE', { subject: this.#subject, line: this.#line, reason })
  }
}

function isDots(names: Buffer, from: number, to: number): boolean {
  if (to - from > 2) return false
  for (let i = from; i < to; i++) if (names[i] !== 0x2e) return false
  return true
}
