// Whatever is done in a rootfs: the upper directory tells what comparing with the record tells, what is packed is what is
// there, and a refresh changes nothing that can be seen.
import * as fs from 'node:fs'
import path from 'node:path'
import assert from 'node:assert/strict'
import * as fc from 'fast-check'
import t from 'tap'
import { cstring } from '../../../lib/fs/libc.ts'
import { setxattr } from '../../../lib/fs/xattr-calls.ts'
import { Koci, listDelta, unmountBundle } from '../../../lib/index.ts'
import { mtree } from '../../../middleware/mtree/index.ts'
import { overlay } from '../../../middleware/overlay/index.ts'
import { bound, differential } from '../../support/differential.ts'
import { makeImage } from '../../support/image.ts'
import { anyImage, toMembers, type Entry } from '../../support/image-arbitrary.ts'
import { memoryParent } from '../../support/memory-dir.ts'
import { namespace, runInNamespaces } from '../../support/namespaces.ts'
import { temporary } from '../../support/peers.ts'
import { describeTree } from '../../support/tree.ts'

t.setTimeout((900 + bound(60)) * 1000)
const rootless = namespace === 'user'

/** Something that is done to a name in the rootfs; refused by the kernel, it is nothing. */
interface Deed {
  readonly what: (typeof deeds)[number]
  readonly path: string
  readonly other: string
}

const deeds = [
  'write',
  'append',
  'truncate',
  'open',
  'replace',
  'mkdir',
  'remove',
  'remake',
  'chmod',
  'touch',
  'rename',
  'symlink',
  'attribute',
  'link',
] as const
const names = ['a', 'b', 'c', 'd', 'e']
const anyName = fc.constantFrom(...names)
// near the root there is more to be done
const anyPath = fc.oneof(
  { weight: 3, arbitrary: anyName },
  fc.array(anyName, { minLength: 2, maxLength: 3 }).map(parts => parts.join('/')),
)
const anyDeed: fc.Arbitrary<Deed> = fc.record({
  what: fc.constantFrom(...deeds),
  path: anyPath,
  other: anyPath,
})

/** Does it by the rules of both ways: the name of one file with several names is never written to, nor taken away. */
function perform(rootfs: string, { what, path: name, other }: Deed, clock: number): void {
  const at = (each: string): string => path.join(rootfs, each)
  const target = at(name)
  const stat = tryStat(rootfs, name)
  const isShared = (each: fs.Stats | undefined): boolean =>
    each !== undefined && !each.isDirectory() && each.nlink > 1
  // not Node's own recursion: it follows links, for ever
  const holdsShared = (each: string): boolean =>
    fs.readdirSync(each, { withFileTypes: true }).some(entry => {
      const within = path.join(each, entry.name)
      return entry.isDirectory() ? holdsShared(within) : isShared(fs.lstatSync(within))
    })
  if (stat === null || tryStat(rootfs, other) === null) return
  if (isShared(stat) || (stat?.isDirectory() === true && holdsShared(target))) return
  const isFile = stat?.isFile() ?? false
  if (what === 'write') {
    if (stat === undefined || isFile) fs.writeFileSync(target, `written ${clock}`)
  } else if (what === 'append') {
    if (isFile) fs.appendFileSync(target, '+')
  } else if (what === 'truncate') {
    if (isFile) fs.truncateSync(target, 0)
  } else if (what === 'open') {
    if (isFile) fs.closeSync(fs.openSync(target, 'r+'))
  } else if (what === 'replace') {
    if (!isFile) return
    fs.writeFileSync(`${target}.new`, 'replaced')
    fs.renameSync(`${target}.new`, target)
  } else if (what === 'mkdir') fs.mkdirSync(target)
  else if (what === 'remove') fs.rmSync(target, { recursive: true })
  else if (what === 'remake') {
    fs.rmSync(target, { recursive: true })
    fs.mkdirSync(target)
  } else if (what === 'chmod') {
    if (stat && !stat.isSymbolicLink()) fs.chmodSync(target, 0o700 + (clock % 64))
  } else if (what === 'touch') fs.lutimesSync(target, clock, clock)
  else if (what === 'rename') {
    // a directory of the layers can't be renamed on overlayfs: programs copy then
    const there = tryStat(rootfs, other)
    if (isFile && !isShared(there ?? undefined)) fs.renameSync(target, at(other))
  } else if (what === 'symlink') fs.symlinkSync(other, target)
  else if (what === 'attribute') {
    if (isFile) setxattr(cstring(target), cstring('user.deed'), Buffer.from(String(clock)))
  } else if (isFile && tryStat(rootfs, other) === undefined) {
    // both names are new: a link to a file of the layers is known to differ
    fs.writeFileSync(`${target}.one`, 'linked')
    fs.linkSync(`${target}.one`, at(other))
  }
}

/** Undefined where there is nothing; null where the path leads through a symlink, which might lead anywhere. */
function tryStat(rootfs: string, name: string): fs.Stats | undefined | null {
  let at = rootfs
  let stat: fs.Stats | undefined
  const parts = name.split('/')
  for (const [index, part] of parts.entries()) {
    at = path.join(at, part)
    stat = fs.lstatSync(at, { throwIfNoEntry: false })
    if (index < parts.length - 1 && stat && !stat.isDirectory()) return null
  }
  return stat
}

function performAll(rootfs: string, all: readonly Deed[]): void {
  for (const [clock, deed] of all.entries())
    try {
      perform(rootfs, deed, clock)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).syscall === undefined) throw error
    }
}

/** The clock of a plain file system and of a mounted one tell different times: what is new has any. */
const plainly = (entry: Entry): Entry | undefined =>
  entry.type === 'hardlink' ? undefined : { ...entry, mode: entry.mode | 0o700 }

async function inNamespace(): Promise<void> {
  await t.test('deeds', async t => {
    const base = temporary(t, 'deeds', memoryParent())
    const count = { images: 0, changes: 0 }
    await differential(
      fc.asyncProperty(
        anyImage({ privileged: namespace === 'host', change: plainly, maxLayers: 3 }),
        fc.array(anyDeed, { minLength: 6, maxLength: 16, size: 'max' }),
        async (image, all) => {
          const directory = path.join(base, String(count.images++))
          fs.mkdirSync(directory)
          const images = path.join(directory, 'images')
          const made = await makeImage(images, 'test', {
            layers: toMembers(image),
            compression: 'none',
          })
          const stacked = new Koci().use(overlay())
          const plain = new Koci().use(mtree())
          const [one, other] = [path.join(directory, 'one'), path.join(directory, 'other')]
          await stacked.unpack({ image: made, bundle: one, rootless })
          try {
            await plain.unpack({ image: made, bundle: other, rootless })
            for (const each of [one, other]) performAll(path.join(each, 'rootfs'), all)
            const lists = await Promise.all(
              [
                [stacked, one],
                [plain, other],
              ].map(async ([app, bundle]) =>
                (await listDelta(app as Koci, { bundle: bundle as string })).map(
                  ({ kind, path }) => `${kind} ${path}`,
                ),
              ),
            )
            assert.deepEqual(lists[0], lists[1])
            count.changes += lists[0]?.length ?? 0

            const tree = describeTree(path.join(one, 'rootfs'))
            await stacked.repack({ image: `${images}:new`, bundle: one, refresh: true })
            assert.deepEqual(describeTree(path.join(one, 'rootfs')), tree)
            assert.deepEqual([...(await listDelta(stacked, { bundle: one }))], [])
            const again = path.join(directory, 'again')
            await plain.unpack({ image: `${images}:new`, bundle: again, rootless })
            assert.deepEqual(describeTree(path.join(again, 'rootfs')), tree)
          } finally {
            await unmountBundle(stacked, { bundle: one })
            fs.rmSync(directory, { recursive: true, force: true })
          }
        },
      ),
      12,
    )
    t.comment(JSON.stringify(count))
    t.ok(count.changes > 0, 'something was done')
  })
}

if (namespace === undefined) await runInNamespaces(t, import.meta.filename)
else await inNamespace()
