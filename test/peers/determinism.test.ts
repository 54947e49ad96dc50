// The same tree gives the same bytes, whatever the process that packs it is like.
import { chmodSync, mkdirSync, rmSync, utimesSync, writeFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import path from 'node:path'
import t from 'tap'
import { makeImage } from '../support/image.ts'
import { dir, peerImage } from '../support/peer-image.ts'
import {
  isRoot,
  missing,
  runKoci,
  temporary,
  type KociAnswer,
  type RunOptions,
} from '../support/peers.ts'
import { describeTree } from '../support/tree.ts'

const rootless = !isRoot

interface Variant extends RunOptions {
  /** The order in which the files that are packed come into being; 1 or -1. */
  readonly order?: 1 | -1
  readonly skip?: false | string
}

const variants: Record<string, Variant> = {
  'as it is': {},
  'the locale C, one thread, umask 0': {
    env: { LC_ALL: 'C', LANG: 'C', UV_THREADPOOL_SIZE: '1' },
    umask: '0',
  },
  'a Turkish locale, four threads, umask 077': {
    env: { LC_ALL: 'tr_TR.UTF-8', LANG: 'tr_TR.UTF-8', UV_THREADPOOL_SIZE: '4' },
    umask: '077',
  },
  'a Swedish locale, another time zone and directory': {
    env: { LC_ALL: 'sv_SE.UTF-8', LANG: 'sv_SE.UTF-8', TZ: 'Asia/Kathmandu' },
    cwd: '/tmp',
  },
  'files made in another order': { order: -1 },
  'one processor': {
    processor: 0,
    skip: availableParallelism() < 2 ? 'needs two processors' : missing('taskset'),
  },
}

// names that locales sort, or change, in ways of their own
const names = [
  'i',
  'I',
  'ı',
  'İ',
  'z',
  'ä',
  'Z',
  '_',
  'a',
  'B',
  '10',
  '9',
  '.hidden',
  'e\u0301',
  'é',
]
const later = new Date('2026-05-05T05:05:05Z')

/** Makes the same changes to a rootfs, one after the other or the other way round. */
function change(rootfs: string, order: number): void {
  const there = path.join(rootfs, 'dir/new')
  mkdirSync(there)
  chmodSync(there, 0o755)
  for (const name of order > 0 ? names : names.toReversed()) {
    const file = path.join(there, name)
    writeFileSync(file, `${name}\n`.repeat(name.length * 1000))
    chmodSync(file, 0o644)
    utimesSync(file, later, later)
  }
  // more than one block of what is compressed at once
  writeFileSync(`${rootfs}/etc/passwd`, 'not very random\n'.repeat(300_000))
  chmodSync(`${rootfs}/etc/passwd`, 0o600)
  rmSync(`${rootfs}/opaque/kept`, { recursive: true })
  for (const name of ['etc/passwd', 'dir/new', 'dir', 'opaque'])
    utimesSync(path.join(rootfs, name), later, later)
}

const compressions = ['gzip', 'zstd', 'none'] as const

await t.test('the same layers and, with a date, the same manifests', async t => {
  const base = temporary(t, 'determinism')
  // what no layer has an entry for would get its mode from the umask
  const layers = [...peerImage.layers, [dir('usr/'), dir('usr/share/')]]
  let first: { tree: string[]; answers: KociAnswer[] } | undefined
  for (const [what, { skip = false, order = 1, ...variant }] of Object.entries(variants))
    await t.test(what, { skip }, async t => {
      const directory = path.join(base, what)
      mkdirSync(directory)
      const images = path.join(directory, 'images')
      const bundle = path.join(directory, 'bundle')
      const rootfs = path.join(bundle, 'rootfs')
      const image = await makeImage(images, 'test', { ...peerImage, layers })
      const env = { SOURCE_DATE_EPOCH: '1790000000', ...variant.env }
      runKoci([['unpack', { image, bundle, rootless }]], { ...variant, env })
      change(rootfs, order)
      const answers = runKoci(
        compressions.map(compress => [
          'repack',
          { image: `${images}:${compress}`, bundle, compress },
        ]),
        { ...variant, env },
      )
      const tree = describeTree(rootfs)
      first ??= { tree, answers }
      t.strictSame(tree, first.tree)
      t.equal(answers.length, compressions.length)
      t.equal(new Set(answers.map(({ manifest }) => manifest)).size, compressions.length)
      for (const { changes, layers: digests } of answers) {
        // the edited file has a second name
        t.equal(changes.length, names.length + 6)
        t.equal(digests?.length, layers.length + 1)
      }
      t.strictSame(answers, first.answers)
    })
})
