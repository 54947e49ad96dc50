// A directory in which nobody else can have put anything: what is in it is believed, and there may be setuid programs in it.
import { lstatSync, mkdirSync, realpathSync, statSync } from 'node:fs'
import path from 'node:path'
import { createError, wrapError } from '../errors.ts'

const sticky = 0o1000

/**
 * Makes `<dir>/<name>`, with mode 0700, if it isn't there; gives its path, all links followed.
 * @throws {UsageError} ERR_KOCI_UNTRUSTED if it isn't the user's own and only his; {SystemError} ERR_KOCI_IO
 */
export function makePrivateDirectory(dir: string, name: string): string {
  try {
    mkdirSync(dir, { recursive: true, mode: 0o700 })
    const real = realpathSync(dir)
    const found = statSync(real)
    assertOwn(real, found)
    assertNotWritable(real, found.mode, 0o022, real)
    for (let above = path.dirname(real); ; above = path.dirname(above)) {
      const { mode } = statSync(above)
      if ((mode & sticky) === 0) assertNotWritable(real, mode, 0o002, above)
      if (above === path.dirname(above)) break
    }
    const own = path.join(real, name)
    mkdirSync(own, { recursive: true, mode: 0o700 })
    const inner = lstatSync(own)
    assertOwn(own, inner)
    assertNotWritable(own, inner.mode, 0o077, own)
    return own
  } catch (error) {
    throw wrapError(error, dir)
  }
}

function assertOwn(subject: string, { uid }: { readonly uid: number }): void {
  if (uid === process.geteuid?.()) return
  throw createError('UNTRUSTED', { subject, reason: `it belongs to user ${uid}` })
}

function assertNotWritable(subject: string, mode: number, bits: number, at: string): void {
  if ((mode & bits) === 0) return
  const reason = `others have access to ${at}, whose mode is ${(mode & 0o7777).toString(8)}`
  throw createError('UNTRUSTED', { subject, reason })
}
