// What turns gzip members into bytes. Two can: Node's own zlib, which is always there, and Intel's ISA-L, where the system
// has it, at nearly twice the speed. Which one it was never shows in what comes out: both check header, checksum and length.
import { createIsalInflater } from './isal-inflater.ts'
import type { Room } from './native.ts'
import { createZlibInflater } from './zlib-inflater.ts'

/**
 * Inflates one gzip member at a time. Its memory isn't the garbage collector's: whoever makes one closes it.
 * What is no gzip, corrupt, or doesn't have its checksum or length is refused by a `Refusal` that says why.
 */
export interface Inflater {
  /** Input bytes that weren't taken yet. */
  readonly left: number
  /** Starts a member. */
  reset(): void
  /** Gives it input: up to 1 GiB of a chunk, which has to be kept until none is left. */
  give(chunk: Buffer, at: number, length: number): void
  /**
   * Inflates until the room is full, the input is used up, or the member has ended.
   * @returns how many bytes it put into the room, up to 256 KiB
   */
  run(room: Room): number
  /** Whether the member has ended, everything it held being out. */
  readonly ended: boolean
  close(): void
}

/** Names of inflaters, the preferred one first. */
export type InflaterName = 'isal' | 'zlib'

/**
 * Makes the fastest inflater that there is, or the one of that name. Without a name, `KOCI_INFLATER=zlib` in the
 * environment leaves ISA-L alone.
 * @throws {UnsupportedError} ERR_KOCI_UNSUPPORTED_PLATFORM if there is none, or not that one
 */
export function createInflater(
  subject: string,
  name: InflaterName | undefined = fromEnvironment(),
): Inflater {
  return (
    (name === 'zlib' ? undefined : createIsalInflater(subject, name === 'isal')) ??
    createZlibInflater(subject)
  )
}

function fromEnvironment(): InflaterName | undefined {
  return process.env['KOCI_INFLATER'] === 'zlib' ? 'zlib' : undefined
}
