// Layers to be stacked, generated: few names, so that everything gets in the way of everything else.
import * as fc from 'fast-check'
import { dir, fifo, file, hard, link } from './members.ts'
import { xattrRecord, type TarMember } from './tar-builder.ts'

const parts = fc.array(fc.constantFrom('a', 'b', 'c'), { minLength: 1, maxLength: 3 })
const path = parts.map(names => names.join('/'))
const target = fc.oneof(
  path,
  path.map(name => `/${name}`),
  path.map(name => `../${name}`),
  fc.constant('.'),
)
const uid = fc.constantFrom(0, 0, 1000)
const mtime = fc.constantFrom(1, 2, '3.5')
const mode = fc.constantFrom(0o755, 0o700, 0o1777, 0o2750)
const xattrs = fc.subarray([
  xattrRecord('user.k', 'v'),
  xattrRecord('user.overlay.opaque', 'y'),
  xattrRecord('user.overlay.overlay.x', ''),
])
const root = fc.tuple(mode, mtime).map(([mode, mtime]) => dir('./', { mode, mtime }))
const directory = fc
  .tuple(path, mode, mtime, uid, xattrs)
  .map(([name, mode, mtime, uid, pax]) => dir(name, { mode, mtime, uid, pax }))
const regular = fc
  .tuple(path, mtime, uid, xattrs)
  .map(([name, mtime, uid, pax]) => file(name, name, { mtime, uid, pax }))
const symlink = fc
  .tuple(path, target, mtime)
  .map(([name, linkname, mtime]) => link(name, linkname, { mtime }))
const hardlink = fc.tuple(path, path).map(([name, linkname]) => hard(name, linkname))
const pipe = fc.tuple(path, mtime).map(([name, mtime]) => fifo(name, { mtime }))
const whiteout = path.map(name => {
  const at = name.lastIndexOf('/') + 1
  return file(`${name.slice(0, at)}.wh.${name.slice(at)}`)
})
const opaque = path.map(name => file(`${name}/.wh..wh..opq`))
const opaqueRoot = fc.constant(file('.wh..wh..opq'))

const member: fc.Arbitrary<TarMember> = fc.oneof(
  { arbitrary: directory, weight: 6 },
  { arbitrary: regular, weight: 8 },
  { arbitrary: whiteout, weight: 6 },
  { arbitrary: opaque, weight: 4 },
  { arbitrary: symlink, weight: 1 },
  { arbitrary: hardlink, weight: 1 },
  { arbitrary: pipe, weight: 1 },
  { arbitrary: root, weight: 1 },
  { arbitrary: opaqueRoot, weight: 1 },
)

/** Layers of an image, base first; names may be there several times, in whatever order. */
export const stackedLayers: fc.Arbitrary<TarMember[][]> = fc.array(
  fc.array(member, { maxLength: 7 }),
  { minLength: 1, maxLength: 4 },
)
