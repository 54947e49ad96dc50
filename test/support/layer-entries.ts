// Entries for tests of the layer writer, generated and by hand, and what comes back when they are read again.
import * as fc from 'fast-check'
import { writeLayer, type LayerEntry } from '../../lib/layer/layer-writer.ts'
import { collectTar, type Collected } from './collect-tar.ts'

const nsPerSecond = 1_000_000_000n

/** The uncompressed layer, whole. */
export async function layerOf(
  entries: Iterable<LayerEntry> | AsyncIterable<LayerEntry>,
  options: { clampTime?: bigint } = {},
): Promise<Buffer> {
  const chunks: Buffer[] = []
  await writeLayer(entries, chunk => void chunks.push(chunk), options)
  return Buffer.concat(chunks)
}

/** An entry with the uninteresting fields filled in. */
export function entryOf(
  entry: Pick<LayerEntry, 'type'> & {
    path: Buffer | string
    content?: Buffer | string
  } & Partial<Omit<LayerEntry, 'rawPath' | 'type'>>,
): LayerEntry {
  const { path, content, ...rest } = entry
  const bytes = Buffer.from(content ?? '')
  return {
    rawPath: Buffer.from(path),
    mode: entry.type === 'directory' ? 0o755 : 0o644,
    uid: 0,
    gid: 0,
    size: bytes.length,
    mtime: 0n,
    ...(content === undefined ? {} : { body: () => [bytes] }),
    ...rest,
  }
}

/** What was read, in the form in which entries are written; whiteouts are files by then. */
export function readBack(archive: Buffer): unknown[] {
  const { entries, error } = collectTar(archive)
  if (error) throw error
  return entries.map(plain)
}

/** An entry in the form of `readBack`. */
export function plainEntry(entry: LayerEntry): unknown {
  const { rawPath, type, mode, uid, gid, mtime } = entry
  const common = { devmajor: 0, devminor: 0, xattrs: [], linkname: '', body: '' }
  const path = rawPath.toString('latin1')
  const directory = path.includes('/') ? path.slice(0, path.lastIndexOf('/') + 1) : ''
  if (type === 'whiteout' || type === 'opaqueWhiteout') {
    const opaque = path === '' ? '.wh..wh..opq' : `${path}/.wh..wh..opq`
    const name =
      type === 'whiteout' ? `${directory}.wh.${path.slice(directory.length)}` : opaque
    return { ...common, path: name, type: 'file', mode: 0, uid: 0, gid: 0, mtime: 0n, size: 0 }
  }
  const isDevice = type === 'char' || type === 'block'
  const isLink = type === 'symlink' || type === 'hardlink'
  return {
    ...common,
    path: type === 'directory' ? `${path === '' ? '.' : path}/` : path,
    type,
    mode,
    uid,
    gid,
    mtime,
    size: type === 'file' ? entry.size : 0,
    body: type === 'file' ? Buffer.concat([...bodyOf(entry)]).toString('hex') : '',
    linkname: isLink ? (entry.rawLinkname?.toString('latin1') ?? '') : '',
    devmajor: isDevice ? (entry.devmajor ?? 0) : 0,
    devminor: isDevice ? (entry.devminor ?? 0) : 0,
    xattrs: textOf(entry.xattrs ?? []),
  }
}

function plain({ header, pieces }: Collected): unknown {
  return {
    path: header.rawPath.toString('latin1'),
    type: header.type,
    mode: header.mode,
    uid: header.uid,
    gid: header.gid,
    mtime: header.mtime,
    size: header.size,
    body: Buffer.concat(pieces.map(piece => piece.bytes)).toString('hex'),
    linkname: header.rawLinkname.toString('latin1'),
    devmajor: header.devmajor,
    devminor: header.devminor,
    xattrs: textOf(header.xattrs),
  }
}

function textOf(xattrs: NonNullable<LayerEntry['xattrs']>): string[] {
  return xattrs.map(pair => pair.map(part => part.toString('latin1')).join('\0')).sort(compare)
}

function compare(a: string, b: string): number {
  return a < b ? -1 : Number(a > b)
}

function bodyOf(entry: LayerEntry): Iterable<Buffer> {
  const body = entry.body?.() ?? []
  if (Symbol.iterator in body) return body
  throw new Error('a test entry has an asynchronous body')
}

const byte = fc.oneof(
  fc.constantFrom(0x61, 0x62, 0x3d, 0x0a, 0x20, 0x2e, 0xc3, 0xa9, 0xff, 0x5c, 0x7f),
  fc.integer({ min: 1, max: 255 }).filter(value => value !== 0x2f),
)
const component = fc
  .array(byte, { minLength: 1, maxLength: 90 })
  .map(bytes => Buffer.from(bytes))
  .filter(name => !['.', '..'].includes(name.toString('latin1')) && !isWhiteoutName(name))
const path = fc
  .array(component, { minLength: 1, maxLength: 4 })
  .map(parts => Buffer.from(parts.map(part => part.toString('latin1')).join('/'), 'latin1'))
const bytes = (maxLength: number): fc.Arbitrary<Buffer> =>
  fc.uint8Array({ maxLength }).map(array => Buffer.from(array))
const id = fc.oneof(
  fc.constantFrom(0, 1000, 0o777777, 0o1000000, 2_097_151, 2_097_152, 2 ** 32 - 2),
  fc.integer({ min: 0, max: 2 ** 32 - 2 }),
)
const time = fc.oneof(
  fc.constantFrom(
    0n,
    1n,
    -1n,
    nsPerSecond,
    1_700_000_000n * nsPerSecond,
    2n ** 31n * nsPerSecond,
  ),
  fc.constantFrom(2n ** 33n * nsPerSecond, -1_500_000_000n, 10n ** 14n * nsPerSecond),
  fc.bigInt({ min: -(2n ** 62n), max: 2n ** 62n }),
)
const xattrs = fc.uniqueArray(
  fc.tuple(
    component.filter(name => !name.includes('=')),
    bytes(300),
  ),
  { maxLength: 3, selector: ([name]) => name.toString('latin1') },
)
const types = [
  'file',
  'directory',
  'symlink',
  'hardlink',
  'char',
  'block',
  'fifo',
  'whiteout',
  'opaqueWhiteout',
] as const

/** Any entry that a layer can hold. */
export const anyEntry: fc.Arbitrary<LayerEntry> = fc
  .record({
    type: fc.constantFrom(...types),
    rawPath: path,
    mode: fc.integer({ min: 0, max: 0o7777 }),
    uid: id,
    gid: id,
    mtime: time,
    rawLinkname: fc.array(byte, { minLength: 1, maxLength: 150 }).map(all => Buffer.from(all)),
    devmajor: fc.integer({ min: 0, max: 4095 }),
    devminor: fc.integer({ min: 0, max: 0o777777 }),
    xattrs,
    content: bytes(1500),
  })
  .map(({ content, ...entry }) => ({
    ...entry,
    size: entry.type === 'file' ? content.length : 0,
    body: () => [content.subarray(0, 700), content.subarray(700)],
  }))

function isWhiteoutName(name: Buffer): boolean {
  return name.toString('latin1').startsWith('.wh.')
}
