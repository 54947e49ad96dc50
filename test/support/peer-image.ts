// An image with everything in it that others have to agree on, in three layers.
import type { ImageDraft } from '../../lib/oci/image-draft.ts'
import type { TestImage } from './image.ts'
import { isRoot } from './peers.ts'
import { xattrRecord, type TarMember } from './tar-builder.ts'

/** A directory. */
export const dir = (name: string, rest: Partial<TarMember> = {}): TarMember => ({
  name,
  type: 'directory',
  mtime: 1_600_000_000,
  ...rest,
})
const file = (name: string, rest: Partial<TarMember> = {}): TarMember => ({
  name,
  body: `${name}\n`,
  mtime: 1_700_000_000,
  ...rest,
})
const whiteout = (name: string): TarMember => ({ name })
const capability = Buffer.from('0100000200200000000000000000000000000000', 'hex')

/** What any user can unpack and read again. */
const common: readonly TarMember[][] = [
  [
    dir('./', { mode: 0o755, mtime: 1_500_000_000 }),
    dir('etc/', { mode: 0o2755, gid: 50, mtime: '1600000000.123456789' }),
    file('etc/passwd', { mtime: '1700000000.999999999' }),
    file('etc/suid', { mode: 0o6755, uid: 1000, gid: 1000, body: 'x'.repeat(100_000) }),
    file('etc/group-owned', { mode: 0o640, gid: 42 }),
    file('etc/attributes', {
      pax: [xattrRecord('user.a', 'value'), xattrRecord('user.b', Buffer.from([0, 10, 255]))],
    }),
    file('etc/empty', { body: '' }),
    file(' spaces and # signs*?[\\', {}),
    file('n'.repeat(255), {}),
    file('é', {}),
    dir('tmp/', { mode: 0o1777 }),
    dir('dir/', { pax: [xattrRecord('user.of-directory', '1')] }),
    file('dir/one'),
    file('dir/two'),
    { name: 'dir/three', type: 'hardlink', linkname: 'dir/two' },
    {
      name: 'link',
      type: 'symlink',
      linkname: '../../etc/passwd',
      uid: 8,
      mtime: '2.000000001',
    },
    { name: 'dangling', type: 'symlink', linkname: '/nowhere/é', mtime: 5 },
    { name: 'fifo', type: 'fifo', mode: 0o620, mtime: 3 },
    dir('opaque/'),
    file('opaque/old'),
    dir('opaque/kept/'),
    file('opaque/kept/old'),
    dir('to-file/'),
    file('to-file/x'),
    file('to-dir'),
  ],
  [
    dir('./', { mtime: 1_500_000_001 }),
    dir('dir/', { mtime: 1_600_000_001 }),
    whiteout('dir/.wh.one'),
    dir('opaque/', { mtime: 1_600_000_002 }),
    whiteout('opaque/.wh..wh..opq'),
    dir('opaque/kept/', { mtime: 1_600_000_003 }),
    file('opaque/kept/new', { mtime: '1700000001.5' }),
    file('to-file', { mtime: 1_700_000_002 }),
    dir('to-dir/', { mtime: 1_600_000_004 }),
    file('to-dir/x'),
  ],
  [
    dir('etc/', { mode: 0o755, mtime: 1_600_000_005 }),
    file('etc/passwd', { body: 'another\n', mtime: 1_700_000_003 }),
    { name: 'etc/passwd-', type: 'hardlink', linkname: 'etc/passwd' },
    { name: 'etc/second', type: 'hardlink', linkname: 'dir/two' },
    whiteout('.wh.dangling'),
    whiteout('.wh.never-was'),
    dir('./', { mtime: 1_500_000_009 }),
  ],
]

/** What takes root to unpack, or to read. */
const privileged: readonly TarMember[][] = [
  [
    file('etc/shadow', { mode: 0, gid: 42, mtime: '-1.5' }),
    file('etc/capable', { uid: 7, pax: [xattrRecord('security.capability', capability)] }),
    file('etc/big-ids', { uid: 4_294_967_294, gid: 2_097_152 }),
    dir('private/', { mode: 0, uid: 9 }),
    file('private/x'),
    { ...file('raw'), name: Buffer.from([0x61, 0xff, 0x0a]) },
    { name: 'hard-link', type: 'hardlink', linkname: './link' },
    { name: 'null', type: 'char', devmajor: 1, devminor: 3, mode: 0o666, mtime: 3 },
    {
      name: 'disk',
      type: 'block',
      devmajor: 259,
      devminor: 70_000,
      mode: 0o660,
      gid: 6,
      mtime: 3,
    },
  ],
]

/** The layers, base first; as root with what takes root. */
export const peerLayers: readonly TarMember[][] = isRoot
  ? common.map((members, index) => [
      ...members,
      ...(privileged[index] ?? []),
      dir('./', { mtime: 1_500_000_010 }),
    ])
  : common

/** The same as an image. */
export const peerImage: TestImage = { layers: peerLayers, change: dated }

/** umoci 0.4.7 panics at `stat` of a history that has no times. */
function dated(draft: ImageDraft): ImageDraft {
  const history = draft.config.history?.map(entry => ({
    ...entry,
    created: '2026-01-01T00:00:00Z',
  }))
  return { ...draft, config: { ...draft.config, ...(history ? { history } : {}) } }
}
