// The images of the conformance suite: each shows one thing that storage gets wrong.
import { readPrivileges } from '../fs/privileges.ts'
import {
  dir,
  file,
  hardlink,
  image,
  opaque,
  symlink,
  whiteout,
  type ImageBuilder,
} from './image.ts'

const root = dir('', { mode: 0o751, mtime: 3 })
// in a user namespace there may be no other ids
const isRoot = process.geteuid?.() === 0 && !readPrivileges().inUserNamespace

/** By what they show. */
export const images: Readonly<Record<string, ImageBuilder>> = {
  'files, modes and times': image().layer(
    root,
    dir('d', { mode: 0o700, mtime: 2.5 }),
    file('d/x', 'x', { mode: 0o600, mtime: 1e9 }),
    file('d/none', '', { mode: 0 }),
    file('d/setuid', '#!', { mode: 0o4755 }),
    file('before', '', { mtime: -1.5 }),
    file('late', '', { mtime: 5e9 }),
    file(Buffer.from('not \xff utf-8', 'latin1'), 'x'),
    file('long'.repeat(60), 'long'),
    symlink('link', '../../outside', { mtime: 7 }),
    symlink('dangling', 'nowhere'),
  ),
  whiteouts: image()
    .layer(root, dir('d'), file('d/x', 'x'), file('d/y'), file('f'), dir('e'), file('e/z'))
    .layer(whiteout('d/x'), whiteout('e'), whiteout('never'))
    .layer(file('d/x', 'again', { mtime: 9 }), dir('e'), whiteout('f')),
  'opaque directories': image()
    .layer(root, dir('d'), file('d/x'), dir('d/e'), file('d/e/y'), file('f'))
    .layer(dir('d', { mode: 0o711 }), opaque('d'), file('d/new', 'new'))
    .layer(dir('d/e'), opaque('d/e'), file('d/e/last')),
  'hard links': image()
    .layer(root, file('a', 'a'), hardlink('b', 'a'), dir('d'), hardlink('d/c', 'a'))
    .layer(file('a', 'other', { mtime: 5 })),
  'hard links to lower layers': image()
    .layer(root, dir('d'), file('d/a', 'a'), file('b', 'b'))
    .layer(hardlink('c', 'd/a'), file('e', 'e'))
    .layer(hardlink('f', 'e'), whiteout('d/a')),
  'symlinked parents': image()
    .layer(root, dir('real'), file('real/x', 'x'), symlink('way', 'real'))
    .layer(file('way/y', 'y'), whiteout('way/x'))
    .layer(file('way/z', 'z')),
  'types that change': image()
    .layer(
      root,
      dir('a'),
      file('a/x'),
      file('b', 'b'),
      symlink('c', 'b'),
      dir('d'),
      file('d/y'),
    )
    .layer(file('a', 'file'), dir('b'), file('b/in', 'in'), dir('c'), symlink('d', 'b'))
    .layer(dir('a', { mode: 0o700 }), file('a/new'), whiteout('d')),
  attributes: image()
    .layer(
      root,
      dir('d', { xattrs: { 'user.d': 'directory' } }),
      file('f', 'f', { xattrs: { 'user.one': 'two', 'user.bytes': Buffer.from([0, 255]) } }),
      ...(isRoot ? [file('owned', 'x', { uid: 70_000, gid: 3, mode: 0o2755 })] : []),
    )
    .layer(file('f', 'f', { xattrs: { 'user.one': 'three' } })),
  'directories without an entry': image()
    .layer(root, dir('d', { mode: 0o700, mtime: 4 }), dir('d/e', { mtime: 6 }), file('d/x'))
    .layer(file('d/e/y', 'y'), file('nowhere/before/z', 'z'))
    .layer(whiteout('d/x'), whiteout('not/there')),
  'empty and repeated layers': image()
    .layer(root, file('a', 'a'))
    .layer()
    .layer(file('b', 'b'))
    .layer()
    .layer(whiteout('b'))
    .layer(file('b', 'b')),
}

/** What most tests of the suite work on: three layers that build on each other. */
export const story: ImageBuilder = image()
  .layer(
    root,
    dir('d', { mtime: 2 }),
    file('d/x', 'x'),
    file('d/y', 'y'),
    dir('d/e'),
    file('d/e/z', 'z'),
    file('f', 'file'),
    symlink('link', 'd'),
    dir('made'),
    file('made/gone'),
    file('made/again', 'again'),
  )
  .layer(whiteout('d/y'), file('d/x', 'xx', { mtime: 3 }), dir('g'), file('g/h', 'h'))
  .layer(file('top', 'top', { mtime: 5 }))
