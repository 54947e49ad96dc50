// Images made up by fast-check: few names, so that layers meet in every way, and each entry as odd as an entry may be.
// Whoever compares koci with something (an oracle, umoci, another way to store layers) takes its images from here.
import * as fc from 'fast-check'
import { applyAll, Oracle, Refusal, type Entry } from './oracle.ts'
import { xattrRecord, type TarMember } from './tar-builder.ts'

export type { Entry } from './oracle.ts'

/** An image: its layers, base first. */
export interface GeneratedImage {
  readonly layers: readonly Entry[][]
}

/** What an image may hold. */
export interface ImageOptions {
  /** Owners, devices, modes that bar the owner, attributes that only root may set; default: none of them. */
  readonly privileged?: boolean
  /** Also entries that can't be applied: a layer ends at the first of them. Default: they are left out. */
  readonly refused?: boolean
  /** Whiteouts; default true. */
  readonly whiteouts?: boolean
  /** Names more than once in a layer; default true. */
  readonly duplicates?: boolean
  /** Parents that no entry lists, or that aren't directories; default true. */
  readonly oddParents?: boolean
  /** Parents that are files, so that they have to make room; default true. */
  readonly fileParents?: boolean
  /** Changes entries, or leaves them out, before it is found out which can be applied. */
  readonly change?: (entry: Entry) => Entry | undefined
  readonly maxLayers?: number
  readonly maxEntries?: number
}

const second = 1_000_000_000n
const names = ['a', 'b', 'c', 'd', 'e', 'x y', 'é', '.wh', '-', 'n'.repeat(60)]
const odd = [Buffer.from([0xff, 0x61]), Buffer.from('a\nb'), Buffer.from('\\')]
const opaque = Buffer.from('.wh..wh..opq')
const slash = Buffer.from('/')

const component = fc.oneof(
  { arbitrary: fc.constantFrom(...names.slice(0, 4)), weight: 12 },
  { arbitrary: fc.constantFrom(...names.slice(4), ...odd), weight: 1 },
)
const parts = fc
  .oneof(
    { arbitrary: fc.array(component, { minLength: 1, maxLength: 2 }), weight: 5 },
    { arbitrary: fc.array(component, { minLength: 3, maxLength: 4 }), weight: 2 },
  )
  .map(all => all.map(part => Buffer.from(part)))
/** The same path, written in another way. */
const form = fc.constantFrom(
  ...['', '', '', '', '', '', './', '/', '//', 'a/../', './b/c/../../'].map(text =>
    Buffer.from(text),
  ),
)
const path = fc.tuple(form, parts).map(([before, all]) => Buffer.concat([before, join(all)]))
const id = fc.oneof(
  { arbitrary: fc.constant(0), weight: 3 },
  { arbitrary: fc.constantFrom(1, 1000, 65_534, 2_097_152, 4_294_967_294), weight: 1 },
)
const time = fc.constantFrom(
  0n,
  second,
  1_700_000_000n * second,
  1_700_000_000n * second + 123_456_789n,
  2n ** 31n * second + 999_999_999n,
  2n ** 33n * second,
  -1_500_000_000n,
)
const mode = fc.oneof(
  { arbitrary: fc.constantFrom(0o644, 0o755, 0o700), weight: 3 },
  { arbitrary: fc.integer({ min: 0, max: 0o7777 }), weight: 1 },
)
const value = fc.oneof(
  fc.uint8Array({ maxLength: 20 }).map(bytes => Buffer.from(bytes)),
  fc.constantFrom(Buffer.alloc(0), Buffer.from('=\n\0'), Buffer.alloc(700, 'v')),
)
const target = fc.oneof(
  { arbitrary: parts.map(join), weight: 4 },
  { arbitrary: parts.map(all => Buffer.concat([slash, join(all)])), weight: 2 },
  { arbitrary: parts.map(all => Buffer.concat([Buffer.from('../'), join(all)])), weight: 2 },
  {
    arbitrary: fc.constantFrom(
      ...['.', '..', '/', 'a/', './a', '../../..', '/../b', 'nope/deep', 'a/../b', 'a//b'].map(
        text => Buffer.from(text),
      ),
    ),
    weight: 2,
  },
)
const content = fc.oneof(
  { arbitrary: fc.uint8Array({ maxLength: 40 }).map(bytes => Buffer.from(bytes)), weight: 8 },
  { arbitrary: fc.constantFrom(Buffer.alloc(512, 1), Buffer.alloc(70_000, 2)), weight: 1 },
)

/** Images that can be applied, unless the options say otherwise. */
export function anyImage(options: ImageOptions = {}): fc.Arbitrary<GeneratedImage> {
  const { privileged = false, maxLayers = 4, maxEntries = 20 } = options
  return fc
    .array(fc.array(anyEntry(options), { maxLength: maxEntries, size: 'max' }), {
      minLength: 1,
      maxLength: maxLayers,
      size: 'max',
    })
    .map(layers => {
      const change = (entry: Entry): Entry | undefined =>
        (options.change ?? same)(privileged ? entry : ordinary(entry))
      const changed = layers.map(layer =>
        layer.map(change).filter(entry => entry !== undefined),
      )
      return { layers: selected(changed, options) }
    })
}

/** The layers of an image, to be made a tar each. */
export function toMembers({ layers }: GeneratedImage): TarMember[][] {
  return layers.map(layer => layer.map(toMember))
}

function anyEntry({ privileged = false, whiteouts = true }: ImageOptions): fc.Arbitrary<Entry> {
  const attribute = fc.constantFrom(
    ...['user.a', 'user.b', 'user.\xff', ...(privileged ? ['trusted.a'] : [])].map(name =>
      Buffer.from(name, 'latin1'),
    ),
  )
  const metadata = fc.record({
    mode,
    uid: id,
    gid: id,
    mtime: time,
    xattrs: fc.oneof(
      { arbitrary: fc.constant([]), weight: 3 },
      {
        arbitrary: fc.uniqueArray(fc.tuple(attribute, value), {
          maxLength: 3,
          selector: ([name]) => name.toString('latin1'),
        }),
        weight: 1,
      },
    ),
  })
  const what = (more: Partial<Entry>, weight: number, at: fc.Arbitrary<Buffer> = path) => ({
    weight,
    arbitrary: fc
      .tuple(metadata, at, content, target)
      .map(([common, path, content, linkname]): Entry => {
        const type = more.type ?? 'file'
        return {
          ...common,
          devmajor: 0,
          devminor: 0,
          type,
          path,
          content: type === 'file' ? content : Buffer.alloc(0),
          linkname: type === 'symlink' || type === 'hardlink' ? linkname : Buffer.alloc(0),
          ...(type === 'file' || type === 'directory' ? {} : { xattrs: [] }),
          ...more,
        }
      }),
  })
  const sibling = (name: (last: Buffer) => Buffer): fc.Arbitrary<Buffer> =>
    parts.map(all => join([...all.slice(0, -1), name(all.at(-1) ?? opaque)]))
  const hidden = sibling(last => Buffer.concat([Buffer.from('.wh.'), last]))
  const opaques = fc.oneof(
    { arbitrary: parts.map(all => join([...all, opaque])), weight: 6 },
    { arbitrary: fc.constant(opaque), weight: 1 },
  )
  const none = { mode: 0o644, xattrs: [], content: Buffer.alloc(0) }
  return fc.oneof(
    what({}, 8),
    what({ type: 'directory' }, 7),
    what(
      { type: 'directory' },
      1,
      fc.constantFrom(...['./', '.', '/'].map(text => Buffer.from(text))),
    ),
    what({ type: 'symlink' }, 4),
    what({ type: 'hardlink' }, 4, path),
    what({ type: 'fifo' }, 1),
    what({ type: 'char', devmajor: 1, devminor: 3 }, 1),
    what({ type: 'block', devmajor: 259, devminor: 70_000 }, 1),
    ...(whiteouts
      ? [
          what(none, 5, hidden),
          what(none, 3, opaques),
          what(
            none,
            1,
            sibling(() => Buffer.from('.wh..wh.plnk')),
          ),
        ]
      : []),
  )
}

function same(entry: Entry): Entry {
  return entry
}

/** What any user may make, and read again. */
function ordinary(entry: Entry): Entry {
  // devices become files
  const isReadable = ['file', 'char', 'block'].includes(entry.type)
  const access = entry.type === 'directory' ? 0o700 : isReadable ? 0o400 : 0
  return { ...entry, mode: entry.mode | access }
}

/** Leaves out what can't be applied, and what isn't asked for. */
function selected(layers: readonly Entry[][], options: ImageOptions): Entry[][] {
  if (options.refused === true) return [...layers]
  let oracle = new Oracle()
  const kept: Entry[][] = []
  for (const layer of layers) {
    oracle.beginLayer()
    const entries: Entry[] = []
    kept.push(entries)
    for (const entry of layer) {
      if (!isWanted(oracle, entry, options)) continue
      if (isApplied(oracle, entry)) entries.push(entry)
      else oracle = applyAll(kept)
    }
  }
  return kept
}

function isApplied(oracle: Oracle, entry: Entry): boolean {
  try {
    oracle.apply(entry)
    return true
  } catch (error) {
    if (error instanceof Refusal) return false
    throw error
  }
}

function isWanted(oracle: Oracle, entry: Entry, options: ImageOptions): boolean {
  const { duplicates = true, oddParents = true, fileParents = true } = options
  if (!fileParents && oracle.hasFileParent(entry.path)) return false
  if (!duplicates && oracle.has(entry.path)) return false
  return oddParents || oracle.hasParent(entry.path)
}

function toMember(entry: Entry): TarMember {
  const { type, path, mode, uid, gid, content, linkname, devmajor, devminor, xattrs } = entry
  return {
    type,
    name: path,
    mode,
    uid,
    gid,
    mtime: tarTime(entry.mtime),
    body: Buffer.isBuffer(content) ? content : Buffer.alloc(0),
    linkname,
    devmajor,
    devminor,
    pax: xattrs.map(([name, value]) => {
      const [key, bytes] = xattrRecord('', value)
      return [Buffer.concat([Buffer.from(key), name]), bytes]
    }),
  }
}

/** Whole seconds fit the header; anything else is a pax record. */
function tarTime(mtime: bigint): bigint | string {
  if (mtime % second === 0n) return mtime / second
  const absolute = mtime < 0n ? -mtime : mtime
  const fraction = String(absolute % second).padStart(9, '0')
  return `${mtime < 0n ? '-' : ''}${absolute / second}.${fraction}`
}

function join(all: readonly Buffer[]): Buffer {
  return Buffer.concat(all.flatMap((part, at) => (at === 0 ? [part] : [slash, part])))
}
