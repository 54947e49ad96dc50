// A change as JSON says it.
import type { Change } from '../lib/change.ts'

/** `kind` and `path`, the rootfs itself being the empty one; and `rawPath`, in base64, of a name that isn't UTF-8. */
export function changeToJson({ kind, path, rawPath }: Change): Record<string, string> {
  // without the bytes it couldn't be told from a name that looks like its escaped form
  const isText = Buffer.from(path).equals(rawPath)
  return { kind, path, ...(isText ? {} : { rawPath: rawPath.toString('base64') }) }
}
