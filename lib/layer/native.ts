// Node carries zlib and zstd and exports their symbols; this is how they are called. The fallback is an error.
import koffi from 'koffi'
import { createError } from '../errors.ts'

/** The most that is handed to a sink at once; large enough that calls cost nothing, small enough for the cache. */
export const outputSize: number = 256 * 1024

/** Empty gzip members or zstd frames do no harm but take time; no tool writes more than a few. */
export const maxEmptyMembers = 100_000

/** Memory that native code may keep the address of: unlike small Buffers, it never moves. */
export class NativeMemory {
  readonly bytes: Buffer
  readonly address: bigint
  readonly words: BigUint64Array
  readonly halves: Uint32Array

  constructor(size: number) {
    const memory = new ArrayBuffer(size)
    this.bytes = Buffer.from(memory)
    this.address = koffi.address(this.bytes)
    this.words = new BigUint64Array(memory, 0, Math.floor(size / 8))
    this.halves = new Uint32Array(memory, 0, Math.floor(size / 4))
  }
}

/** What a library was given it can't decompress; the message says why. */
export class Refusal extends Error {}

/** Where {@link outputSize} bytes can be put. */
export interface Room {
  readonly bytes: Buffer
  readonly address: bigint
}

/** Room that is always the same. */
export function makeRoom(): () => Room {
  let room: Room | undefined
  return () => (room ??= new NativeMemory(outputSize))
}

/** The address of a chunk; good for as long as the chunk is reachable. */
export function addressOf(chunk: Buffer): bigint {
  return koffi.address(chunk)
}

/** Finds functions in the process itself, each given as `[symbol, result, …arguments]`. */
export function bind<Name extends string>(
  subject: string,
  prototypes: Readonly<
    Record<Name, readonly [symbol: string, result: string, ...args: string[]]>
  >,
): Record<Name, (...args: unknown[]) => unknown> {
  if (koffi.sizeof('void *') !== 8) throw unsupported(subject, 'koci needs a 64-bit system')
  const library = koffi.load(null)
  const bound: Partial<Record<Name, (...args: unknown[]) => unknown>> = {}
  for (const name of Object.keys(prototypes) as Name[]) {
    const [symbol, result, ...args] = prototypes[name]
    try {
      bound[name] = library.func(symbol, result, args)
    } catch (error) {
      throw unsupported(subject, `this build of Node does not export ${symbol}`, error)
    }
  }
  return bound as Record<Name, (...args: unknown[]) => unknown>
}

/** The error for a Node that can't serve. */
export function unsupported(subject: string, reason: string, cause?: unknown): Error {
  return createError('UNSUPPORTED_PLATFORM', { subject, reason }, cause)
}

/** The error of a decompressor that was closed: its memory is gone. */
export function closed(subject: string): Error {
  return createError('CONSUMED', { subject })
}

/** Counts what is empty, up to the limit. */
export function countEmpty(subject: string, count: number): number {
  if (count >= maxEmptyMembers)
    throw createError('LIMIT_EXCEEDED', {
      subject,
      limit: 'number of empty compressed members',
      value: count + 1,
      maximum: maxEmptyMembers,
    })
  return count + 1
}
