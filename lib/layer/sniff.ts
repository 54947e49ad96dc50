// What bytes look like by their first few. Only ever used in the text of an error: a layer is what its media type
// says, and is never read as what it looks like.

const magics: ReadonlyArray<readonly [name: string, at: number, magic: Buffer]> = [
  ['gzip', 0, Buffer.from('1f8b', 'hex')],
  ['zstd', 0, Buffer.from('28b52ffd', 'hex')],
  ['xz', 0, Buffer.from('fd377a585a00', 'hex')],
  ['bzip2', 0, Buffer.from('BZh')],
  ['lz4', 0, Buffer.from('04224d18', 'hex')],
  ['an uncompressed tar archive', 257, Buffer.from('ustar')],
]

/** ` - it looks like gzip`, or nothing where the bytes look like nothing known. */
export function looksLike(bytes: Buffer): string {
  for (const [name, at, magic] of magics)
    if (bytes.subarray(at, at + magic.length).equals(magic)) return ` - it looks like ${name}`
  return ''
}
