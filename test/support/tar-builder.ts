// Builds tar archives byte by byte, so that tests can make every kind of malformed one.
// Nothing is checked or fixed here: what doesn't fit a field goes to base-256, unless `raw` says otherwise.

/** One header block with what belongs to it. Every field has a default. */
export interface TarMember {
  /** As it stands in the header; more than 100 bytes are put into a pax `path` record. */
  readonly name?: Buffer | string
  readonly type?: keyof typeof typeflags
  /** The type byte, where `type` has no word for it. */
  readonly typeflag?: string | number
  readonly mode?: number
  readonly uid?: number | bigint
  readonly gid?: number | bigint
  /** Seconds; a fraction goes into a pax record as written, so give it as text: '1.5'. */
  readonly mtime?: number | bigint | string
  readonly body?: Buffer | string
  /** What the header says, if it isn't the body's length. */
  readonly size?: number | bigint
  readonly linkname?: Buffer | string
  readonly devmajor?: number
  readonly devminor?: number
  readonly uname?: string
  readonly gname?: string
  /** Records of a pax header in front of the entry. */
  readonly pax?: ReadonlyArray<readonly [key: string | Buffer, value: string | Buffer]>
  /** The body of the pax header instead of records: whatever bytes. */
  readonly rawPax?: Buffer | string
  /** Fields overwritten with these bytes before the checksum is made: `[offset, bytes]`. */
  readonly raw?: ReadonlyArray<readonly [offset: number, bytes: Buffer | string]>
  /** What to write instead of the right checksum. */
  readonly checksum?: string
  /** Default 'ustar\0' + '00'; GNU is 'ustar  \0'. */
  readonly magic?: string
  /** Leaves the body unpadded. */
  readonly unpadded?: boolean
}

const typeflags = {
  file: '0',
  hardlink: '1',
  symlink: '2',
  char: '3',
  block: '4',
  directory: '5',
  fifo: '6',
  contiguous: '7',
  paxGlobal: 'g',
  pax: 'x',
  gnuLongName: 'L',
  gnuLongLink: 'K',
  gnuSparse: 'S',
}

/** A whole archive: the members and, unless `end` is false, two zero blocks. */
export function tarBytes(
  members: readonly TarMember[],
  { end = true }: { end?: boolean } = {},
): Buffer {
  return Buffer.concat([...members.map(memberBytes), ...(end ? [Buffer.alloc(1024)] : [])])
}

/** A pax record: its length in decimal, counting itself, then ` key=value\n`. */
export function paxRecord(key: string | Buffer, value: string | Buffer): Buffer {
  const rest = Buffer.concat([
    Buffer.from(' '),
    Buffer.from(key),
    Buffer.from('='),
    Buffer.from(value),
    Buffer.from('\n'),
  ])
  let length = rest.length
  while (String(length).length + rest.length !== length)
    length = String(length).length + rest.length
  return Buffer.concat([Buffer.from(String(length)), rest])
}

/** The pax record of an extended attribute. */
export function xattrRecord(
  name: string,
  value: string | Buffer,
): readonly [string, string | Buffer] {
  return [`SCHILY.xattr.${name}`, value]
}

function memberBytes(member: TarMember): Buffer {
  const name = Buffer.from(member.name ?? 'file')
  const linkname = Buffer.from(member.linkname ?? '')
  const body = Buffer.from(member.body ?? '')
  const records: Array<readonly [string | Buffer, string | Buffer]> = []
  if (name.length > 100) records.push(['path', name])
  if (linkname.length > 100) records.push(['linkpath', linkname])
  const { mtime = 0 } = member
  if (typeof mtime === 'string') records.push(['mtime', mtime])
  for (const record of member.pax ?? []) records.push(record)
  const pax =
    member.rawPax === undefined
      ? Buffer.concat(records.map(([key, value]) => paxRecord(key, value)))
      : Buffer.from(member.rawPax)
  const header = headerBlock(member, name, linkname, body)
  const content = member.unpadded === true ? body : padded(body)
  if (pax.length === 0) return Buffer.concat([header, content])
  const paxHeader = headerBlock(
    { type: 'pax' },
    Buffer.from('PaxHeaders/x'),
    Buffer.alloc(0),
    pax,
  )
  return Buffer.concat([paxHeader, padded(pax), header, content])
}

function headerBlock(member: TarMember, name: Buffer, linkname: Buffer, body: Buffer): Buffer {
  const block = Buffer.alloc(512)
  const typeflag = member.typeflag ?? typeflags[member.type ?? 'file']
  const { mtime = 0 } = member
  name.copy(block, 0, 0, 100)
  number(block, 100, 8, member.mode ?? (member.type === 'directory' ? 0o755 : 0o644))
  number(block, 108, 8, member.uid ?? 0)
  number(block, 116, 8, member.gid ?? 0)
  number(block, 124, 12, member.size ?? body.length)
  number(
    block,
    136,
    12,
    typeof mtime === 'string' ? Math.max(0, Math.floor(Number(mtime))) : mtime,
  )
  block[156] = typeof typeflag === 'number' ? typeflag : typeflag.charCodeAt(0)
  linkname.copy(block, 157, 0, 100)
  block.write(member.magic ?? 'ustar\x0000', 257, 'latin1')
  block.write(member.uname ?? '', 265)
  block.write(member.gname ?? '', 297)
  number(block, 329, 8, member.devmajor ?? 0)
  number(block, 337, 8, member.devminor ?? 0)
  for (const [offset, bytes] of member.raw ?? []) Buffer.from(bytes).copy(block, offset)
  block.fill(' ', 148, 156)
  const sum = block.reduce((total, byte) => total + byte, 0)
  block.write(member.checksum ?? `${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1')
  return block
}

/** Octal with a final NUL, or base-256 where that is too small or the number negative. */
function number(block: Buffer, offset: number, length: number, value: number | bigint): void {
  const text = value.toString(8)
  if (value >= 0 && text.length < length) {
    block.write(text.padStart(length - 1, '0'), offset, 'latin1')
    return
  }
  let rest = BigInt(value)
  for (let at = offset + length - 1; at >= offset; at--, rest >>= 8n)
    block[at] = Number(rest & 0xffn)
  block[offset] = ((block[offset] ?? 0) & 0xff) | 0x80
}

function padded(body: Buffer): Buffer {
  return Buffer.concat([body, Buffer.alloc((512 - (body.length % 512)) % 512)])
}
