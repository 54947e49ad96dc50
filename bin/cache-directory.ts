// Where Node may keep compiled code. Its default is below /tmp, where somebody else could have put code that root then
// runs; so it is the user's own cache directory, and only if it is the user's own. Read by an old Node, too.
import fs from 'node:fs'
import path from 'node:path'
import process from 'node:process'

/** An absolute path, or an empty string if there is no safe place. */
export function cacheDirectory(): string {
  const env = process.env
  const home = env['HOME']
  if (!home || !path.isAbsolute(home) || !isOwn(home)) return ''
  const xdg = env['XDG_CACHE_HOME']
  const base = xdg && path.isAbsolute(xdg) ? xdg : path.join(home, '.cache')
  if (xdg && !isOwn(base)) return ''
  return path.join(base, 'koci', 'node')
}

function isOwn(directory: string): boolean {
  try {
    const found = fs.statSync(directory)
    return (
      process.geteuid !== undefined &&
      found.uid === process.geteuid() &&
      (found.mode & 0o022) === 0
    )
  } catch {
    return false
  }
}
