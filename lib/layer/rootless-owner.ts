// The owner that a rootless unpack couldn't give a file, kept in the xattr `user.rootlesscontainers` as umoci and
// runrootless do: a protobuf message with uid (field 1) and gid (field 2), where 0xffffffff stands for zero.

/** The xattr's name. */
export const rootlessXattr: Buffer = Buffer.from('user.rootlesscontainers')

const noop = 0xffff_ffff

/** The xattr's value; undefined for 0:0, which needs none. */
export function encodeRootlessOwner(uid: number, gid: number): Buffer | undefined {
  if (uid === 0 && gid === 0) return undefined
  return Buffer.from([0x08, ...varint(uid || noop), 0x10, ...varint(gid || noop)])
}

/** The owner that a value stands for; undefined if it isn't one. */
export function decodeRootlessOwner(
  value: Uint8Array,
): { uid: number; gid: number } | undefined {
  const fields: Record<number, number> = {}
  for (let at = 0; at < value.length;) {
    const tag = value[at++] as number
    let number = 0
    let shift = 0
    for (;;) {
      const byte = value[at++]
      if (byte === undefined || shift > 28) return undefined
      number += (byte & 0x7f) * 2 ** shift
      shift += 7
      if (byte < 0x80) break
    }
    if (number > noop) return undefined
    fields[tag] = number === noop ? 0 : number
  }
  return { uid: fields[0x08] ?? 0, gid: fields[0x10] ?? 0 }
}

function varint(value: number): number[] {
  const bytes: number[] = []
  let rest = value
  for (; rest > 0x7f; rest = Math.floor(rest / 128)) bytes.push((rest % 128) | 0x80)
  bytes.push(rest)
  return bytes
}
