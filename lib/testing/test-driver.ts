// The conformance suite: what every storage driver has to do, whoever wrote it. The measure is plain extraction: a rootfs has
// to look as if the layers had been applied in order, and a new image has to hold what the bundle looked like.
import assert from 'node:assert/strict'
import {
  chmodSync,
  existsSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { Koci } from '../application.ts'
import type { Driver } from '../driver.ts'
import { isError } from '../errors.ts'
import { isMountPoint } from '../fs/mount-table.ts'
import { toText } from '../text.ts'
import { listDelta, mountBundle, unmountBundle } from '../with-bundle.ts'
import { describeTree } from './describe-tree.ts'
import { dir, file } from './image.ts'
import { images, story } from './images.ts'
import { killAndRerun } from './kill-and-rerun.ts'

/** The test context of tap, of node:test, and of whatever else nests tests this way. */
export interface Tester {
  test(name: string, options: { skip?: string | false }, run: () => Promise<void>): unknown
}

/** What a driver does beside extracting; tests of what it doesn't do are left out. */
export interface Capabilities {
  /** Layers are extracted once: another bundle finds them. */
  readonly keeps?: boolean
  /** It lists changes. */
  readonly lists?: boolean
  /** A bundle can be based on the image that it was packed as. */
  readonly refreshes?: boolean
  /** Layers are stacked and mounted. */
  readonly mounts?: boolean
}

/** What is tested. */
export interface DriverTest {
  /**
   * Makes the chain, outermost first. `directory` is the same for all calls in one test, and empty at first: a store
   * belongs there.
   */
  create(directory: string): Driver | readonly Driver[]
  readonly capabilities?: Capabilities
  /** Why tests are skipped, by their names. */
  readonly skip?: Readonly<Record<string, string>>
  /** A module that exports `create`, too: a child process that is killed needs it. */
  readonly module?: URL | string
  /** Where to work. @default the system's directory for temporary files */
  readonly scratch?: string
  /** Called with the directory of each test when it is over, to remove what `rm -r` can't: read-only snapshots, mounts. */
  clear?(directory: string): void | Promise<void>
}

/**
 * Runs the suite. Every test cleans up after itself, also when it fails.
 * @example
 * import t from 'tap' // or: import t from 'node:test'
 * await testDriver(t, { create: directory => [mine({ directory }), mtree()] })
 */
export async function testDriver(t: Tester, driver: DriverTest): Promise<void> {
  const { capabilities = {}, skip = {}, module } = driver
  const names: string[] = []
  const test = async (
    name: string,
    wanted: boolean | undefined,
    run: (place: Place) => Promise<void>,
  ): Promise<void> => {
    names.push(name)
    if (!wanted) return
    await t.test(name, { skip: skip[name] ?? false }, async () => {
      const place = new Place(driver)
      try {
        await run(place)
      } catch (error) {
        // what failed is told, not what therefore can't be removed
        await place.clear().catch(() => {})
        throw error
      }
      await place.clear()
    })
  }

  for (const [name, image] of Object.entries(images))
    await test(name, true, async place => {
      const reference = await image.save(place.layout)
      const bundle = await place.unpack(reference)
      assert.deepEqual(place.describe(bundle), await place.plain(reference))
    })
  await test('a failed unpack leaves nothing', true, failedUnpack)
  await test('layers are found again', capabilities.keeps, foundAgain)
  await test('layers that are there are used, others extracted', capabilities.keeps, partly)
  await test('mounted and unmounted', capabilities.mounts, mountedAgain)
  await test('changes are listed', capabilities.lists, listed)
  await test('unpack, repack, unpack is a fixed point', capabilities.lists, fixedPoint)
  await test('refresh', capabilities.lists && capabilities.refreshes, refreshed)
  await test('killed and run again', module !== undefined, place =>
    killAndRerun(place, String(module)),
  )
  const unknown = Object.keys(skip).filter(name => !names.includes(name))
  assert.deepEqual(unknown, [], 'every skipped test exists')
}

/** Where one test works. */
export class Place {
  readonly base: string
  readonly layout: string
  readonly rootless: boolean = process.geteuid?.() !== 0
  readonly #driver: DriverTest
  #bundles = 0

  constructor(driver: DriverTest) {
    this.#driver = driver
    this.base = mkdtempSync(path.join(driver.scratch ?? tmpdir(), 'koci-conformance-'))
    this.layout = path.join(this.base, 'images')
    mkdirSync(this.store)
  }

  /** Whether the driver lists changes. */
  get lists(): boolean {
    return this.#driver.capabilities?.lists ?? false
  }

  /** What `create` gets. */
  get store(): string {
    return path.join(this.base, 'store')
  }

  /** An application with the chain under test, anew: as another process has it. */
  app(): Koci {
    const made = this.#driver.create(this.store)
    const app = new Koci()
    for (const each of Array.isArray(made) ? (made as Driver[]) : [made as Driver])
      app.use(each)
    return app
  }

  newBundle(): string {
    return path.join(this.base, `bundle-${++this.#bundles}`)
  }

  async unpack(image: string): Promise<string> {
    const bundle = this.newBundle()
    await this.app().unpack({ image, bundle, rootless: this.rootless })
    return bundle
  }

  describe(bundle: string): string[] {
    return describeTree(path.join(bundle, 'rootfs'))
  }

  /** What plain extraction makes of an image. */
  async plain(image: string): Promise<string[]> {
    const bundle = this.newBundle()
    await new Koci().unpack({ image, bundle, rootless: this.rootless })
    return this.describe(bundle)
  }

  async clear(): Promise<void> {
    for (let at = this.#bundles; at > 0; at--) {
      const bundle = path.join(this.base, `bundle-${at}`)
      const rootfs = path.join(bundle, 'rootfs')
      if (existsSync(rootfs) && isMountPoint(rootfs))
        await unmountBundle(this.app(), { bundle })
      if (existsSync(rootfs)) describeTree(rootfs, { open: true })
    }
    await this.#driver.clear?.(this.store)
    rmSync(this.base, { recursive: true, force: true })
  }
}

/** Nothing that handles names as lines, words, text or formats can deal with it. */
const odd = Buffer.from('a b\n \\ \'"%d\xff', 'latin1')

/** Does to a rootfs what programs do; the paths that differ afterwards, as `KIND path`. */
function change(bundle: string): string[] {
  const at = (name: string): string => path.join(bundle, 'rootfs', name)
  writeFileSync(at('d/x'), 'changed')
  rmSync(at('f'))
  rmSync(at('d/e'), { recursive: true })
  rmSync(at('link'))
  mkdirSync(at('link'))
  writeFileSync(at('link/in'), 'in')
  // as mv does it where a directory of a lower layer can't be renamed
  mkdirSync(at('moved'))
  writeFileSync(at('moved/h'), 'h')
  rmSync(at('g'), { recursive: true })
  symlinkSync('moved', at('g'))
  chmodSync(at('top'), 0o600)
  // a directory that is another one now, though it has the same name
  rmSync(at('made'), { recursive: true })
  mkdirSync(at('made'))
  writeFileSync(at('made/again'), 'anew')
  linkSync(at('made/again'), at('made/linked'))
  writeFileSync(Buffer.concat([Buffer.from(`${at('')}/`), odd]), 'odd')
  return [
    `A ${toText(odd)}`,
    'M ',
    'M d',
    'D d/e',
    'M d/x',
    'D f',
    'M g',
    'M link',
    'A link/in',
    'M made',
    'M made/again',
    'D made/gone',
    'A made/linked',
    'A moved',
    'A moved/h',
    'M top',
  ].sort(byPath)
}

const byPath = (a: string, b: string): number => (a.slice(2) < b.slice(2) ? -1 : 1)

async function changesOf(app: Koci, bundle: string): Promise<string[]> {
  const changes = await listDelta(app, { bundle })
  return changes.map(({ kind, path }) => `${kind} ${path}`).sort(byPath)
}

async function failedUnpack(place: Place): Promise<void> {
  const reference = await story.save(place.layout)
  const app = place.app()
  app.use({
    name: 'failing',
    config() {
      assert.fail('on purpose')
    },
  })
  const bundle = place.newBundle()
  await assert.rejects(app.unpack({ image: reference, bundle, rootless: place.rootless }))
  assert.equal(existsSync(bundle), false, 'nothing of the bundle remains')
  const { rootless } = place
  await place.app().unpack({ image: reference, bundle, rootless })
  assert.deepEqual(place.describe(bundle), await place.plain(reference))
}

async function foundAgain(place: Place): Promise<void> {
  const reference = await story.save(place.layout)
  await place.unpack(reference)
  const again = await extractedBy(place, reference)
  assert.deepEqual(again.extracted, [], 'nothing is extracted twice')
  assert.deepEqual(place.describe(again.bundle), await place.plain(reference))
}

async function partly(place: Place): Promise<void> {
  await place.unpack(await story.save(place.layout, 'short'))
  const longer = story.layer(dir('new'), file('new/file', 'new'), file('top', 'new top'))
  const reference = await longer.save(place.layout, 'long')
  const { extracted, bundle } = await extractedBy(place, reference)
  assert.deepEqual(extracted, [3], 'only the new layer is extracted')
  assert.deepEqual(place.describe(bundle), await place.plain(reference))
}

/** Unpacks; the indexes of the layers that were extracted for it. */
async function extractedBy(
  place: Place,
  reference: string,
): Promise<{ bundle: string; extracted: number[] }> {
  const extracted: number[] = []
  const app = place.app()
  app.on('layer:start', ({ data }) => {
    extracted.push(data.layer.index)
  })
  const bundle = place.newBundle()
  await app.unpack({ image: reference, bundle, rootless: place.rootless })
  return { bundle, extracted }
}

async function mountedAgain(place: Place): Promise<void> {
  const reference = await story.save(place.layout)
  const bundle = await place.unpack(reference)
  const rootfs = path.join(bundle, 'rootfs')
  writeFileSync(path.join(rootfs, 'mine'), 'mine')
  const before = place.describe(bundle)
  const changes = ['M ', 'A mine']
  if (place.lists) assert.deepEqual(await changesOf(place.app(), bundle), changes)
  await unmountBundle(place.app(), { bundle })
  assert.equal(isMountPoint(rootfs), false)
  if (place.lists) {
    // it looks empty now, and must not be taken for it
    const found = await changesOf(place.app(), bundle).catch((error: unknown) => {
      if (!isError(error, 'ROOTFS_NOT_MOUNTED')) throw error
    })
    assert.deepEqual(found ?? changes, changes, 'nothing seems to be deleted')
  }
  await unmountBundle(place.app(), { bundle })
  await mountBundle(place.app(), { bundle })
  await mountBundle(place.app(), { bundle })
  assert.deepEqual(place.describe(bundle), before, 'what was changed is there')
}

async function listed(place: Place): Promise<void> {
  const bundle = await place.unpack(await story.save(place.layout))
  assert.deepEqual(await changesOf(place.app(), bundle), [], 'nothing has changed yet')
  const expected = change(bundle)
  assert.deepEqual(await changesOf(place.app(), bundle), expected)
}

async function fixedPoint(place: Place): Promise<void> {
  const bundle = await place.unpack(await story.save(place.layout))
  change(bundle)
  const image = `${place.layout}:changed`
  await place.app().repack({ image, bundle })
  const wanted = place.describe(bundle)
  assert.deepEqual(await place.plain(image), wanted, 'extracted plainly')
  const again = await place.unpack(image)
  assert.deepEqual(place.describe(again), wanted, 'extracted by the driver')
  assert.deepEqual(await changesOf(place.app(), again), [])
  const { changes } = await place.app().repack({ image: `${place.layout}:same`, bundle: again })
  assert.deepEqual([...changes], [], 'packed once more, there is nothing to pack')
}

async function refreshed(place: Place): Promise<void> {
  const bundle = await place.unpack(await story.save(place.layout))
  change(bundle)
  const before = place.describe(bundle)
  await place.app().repack({ image: `${place.layout}:one`, bundle, refresh: true })
  assert.deepEqual(place.describe(bundle), before, 'a refresh changes nothing that is seen')
  assert.deepEqual(await changesOf(place.app(), bundle), [], 'nothing changed since')
  writeFileSync(path.join(bundle, 'rootfs/d/later'), 'later')
  rmSync(path.join(bundle, 'rootfs/moved'), { recursive: true })
  const after = await changesOf(place.app(), bundle)
  assert.deepEqual(after, ['M ', 'M d', 'A d/later', 'D moved'])
  const image = `${place.layout}:two`
  await place.app().repack({ image, bundle, refresh: true })
  assert.deepEqual(await place.plain(image), place.describe(bundle))
}
