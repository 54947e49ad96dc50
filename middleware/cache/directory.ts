// The directory of a store: made private, and used only if nobody else can have put anything in it. What is stored is
// taken for verified, and there are setuid programs in it: neither may be anybody else's business.
import {
  lstatSync,
  mkdirSync,
  readdirSync,
  realpathSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import path from 'node:path'
import { createError, wrapError } from '../../lib/errors.ts'
import { formatVersion } from './key.ts'

/** The part of the directory that has the layout described here; other versions live beside it. */
export const versionDirectory: string = `v${formatVersion}`

/** What each version has. */
export const parts: readonly Part[] = ['layers', 'locks', 'staging', 'leases']

/** A directory of the store. */
export type Part = 'layers' | 'locks' | 'staging' | 'leases'

const tagFile = 'CACHEDIR.TAG'
const tag = `Signature: 8a477f597d28d172789f06886806bc55
# This directory is a cache of container image layers, made by koci.
# It can be made again; see https://bford.info/cachedir/
`
/** What may be beside a store: other versions, another driver's, and what the command line keeps in the default directory. */
const neighbours = /^(v\d+|btrfs-v\d+|node|CACHEDIR\.TAG)$/
const sticky = 0o1000

/** Where a store is, all links followed; undefined if there is none. */
export function findStore(dir: string): string | undefined {
  try {
    const found = lstatSync(dir, { throwIfNoEntry: false })
    if (!found) return undefined
    if (found.isSymbolicLink()) assertOwner(dir, found.uid)
    const real = realpathSync(dir)
    assertDirectory(real)
    const own = path.join(real, versionDirectory)
    const inner = lstatSync(own, { throwIfNoEntry: false })
    if (!inner) return undefined
    if (!inner.isDirectory())
      throw createError('INVALID_STORE', { subject: own, reason: 'it is no directory' })
    assertPrivate(own, inner)
    return own
  } catch (error) {
    throw wrapError(error, dir)
  }
}

/**
 * Makes a store where there is none. Any number of processes may do so at the same time.
 * @throws {FormatError} ERR_KOCI_INVALID_STORE for a directory in which there is something else already; {UsageError}
 * ERR_KOCI_UNTRUSTED; {SystemError} ERR_KOCI_IO
 */
export function makeStore(dir: string): string {
  const found = findStore(dir)
  if (found !== undefined && isWhole(found)) return found
  try {
    makeDirectories(dir)
    const real = realpathSync(dir)
    assertDirectory(real)
    const strangers = readdirSync(real).filter(name => !neighbours.test(name))
    if (strangers.length > 0)
      throw createError('INVALID_STORE', {
        subject: dir,
        reason: `there is something else in it, such as ${strangers[0]}; give an empty directory`,
      })
    const own = path.join(real, versionDirectory)
    makePrivate(own)
    for (const part of parts) makePrivate(path.join(own, part))
    writeTag(path.join(real, tagFile))
    return own
  } catch (error) {
    throw wrapError(error, dir)
  }
}

/** Step by step: on a file system that can't be written to, Node's recursive mkdir says that something is missing. */
function makeDirectories(directory: string): void {
  if (lstatSync(directory, { throwIfNoEntry: false })) return
  makeDirectories(path.dirname(directory))
  try {
    mkdirSync(directory, 0o700)
  } catch (error) {
    // somebody else may have been quicker
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
  }
}

function isWhole(own: string): boolean {
  return parts.every(part => statSync(path.join(own, part), { throwIfNoEntry: false }))
}

function makePrivate(directory: string): void {
  try {
    mkdirSync(directory, 0o700)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
  }
  assertPrivate(directory, lstatSync(directory))
}

function writeTag(file: string): void {
  try {
    writeFileSync(file, tag, { flag: 'wx', mode: 0o644 })
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
  }
}

interface Found {
  readonly uid: number
  readonly mode: number
}

/** The directory is the user's and nobody else can write to it; nor can everybody replace it or a directory above. */
function assertDirectory(real: string): void {
  const found = statSync(real)
  if (!found.isDirectory())
    throw createError('INVALID_STORE', { subject: real, reason: 'it is no directory' })
  assertOwner(real, found.uid)
  assertNotWritable(real, found, 0o022)
  for (let above = path.dirname(real); ; above = path.dirname(above)) {
    const { mode, uid } = statSync(above)
    if ((mode & sticky) === 0) assertNotWritable(real, { mode, uid }, 0o002, above)
    if (above === path.dirname(above)) return
  }
}

function assertPrivate(directory: string, { uid, mode }: Found): void {
  assertOwner(directory, uid)
  if ((mode & 0o077) === 0) return
  const reason = `its mode is ${(mode & 0o7777).toString(8)}, so that others can reach what is in it; chmod it to 700`
  throw createError('UNTRUSTED', { subject: directory, reason })
}

function assertOwner(subject: string, uid: number): void {
  if (uid === process.geteuid?.()) return
  const reason = `it belongs to user ${uid}, and a store has to be your own`
  throw createError('UNTRUSTED', { subject, reason })
}

function assertNotWritable(subject: string, { mode }: Found, bits: number, at = subject): void {
  if ((mode & bits) === 0) return
  const reason = `others can write to ${at}, whose mode is ${(mode & 0o7777).toString(8)}`
  throw createError('UNTRUSTED', { subject, reason })
}
