// A small world in which koci is killed: a layout, a store and a bundle, operations on them, and what must hold after each,
// however often it was interrupted before.
import {
  appendFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import path from 'node:path'
import { Bundle } from '../../lib/bundle/bundle.ts'
import { readMounts } from '../../lib/fs/mount-table.ts'
import { collectGarbage } from '../../lib/layout/gc.ts'
import { ImageLayout, Koci, listDelta, mountBundle, unmountBundle } from '../../lib/index.ts'
import { collect } from '../../middleware/cache/collect.ts'
import { cache } from '../../middleware/cache/index.ts'
import { Store } from '../../middleware/cache/store.ts'
import { verify } from '../../middleware/cache/verify.ts'
import { mtree } from '../../middleware/mtree/index.ts'
import { overlay } from '../../middleware/overlay/index.ts'
import { makeImage } from '../support/image.ts'
import { finish } from '../support/peers.ts'
import type { TarMember } from '../support/tar-builder.ts'
import { describeTree } from '../support/tree.ts'

/** What can be interrupted. */
export const operations = ['unpack', 'extract', 'repack', 'refresh', 'mount', 'gc'] as const

/** `extract` unpacks without a store; all others are of stacked layers. */
export type Operation = (typeof operations)[number]

const mtime = 1_700_000_000
const file = (name: string, body = name): TarMember => ({ name, body, mtime })
const directory = (name: string): TarMember => ({ name: `${name}/`, type: 'directory', mtime })

/** Of every kind: independent, with implied parents, with whiteouts, and one that needs those below it. */
const layers: readonly (readonly TarMember[])[] = [
  [
    directory('usr'),
    directory('usr/lib'),
    file('usr/lib/a'),
    file('etc/passwd', 'root:x:0:0'),
    { name: 'lib', type: 'symlink', linkname: 'usr/lib', mtime },
  ],
  [
    file('usr/share/deep/er/b'),
    file('etc/c'),
    { name: 'etc/hard', type: 'hardlink', linkname: 'etc/c', mtime },
  ],
  [
    file('etc/.wh.c'),
    directory('usr/share'),
    file('usr/share/.wh..wh..opq'),
    file('usr/share/d', 'x'.repeat(70_000)),
  ],
  // through a link of the layers below
  [file('lib/e')],
]

/** The files of one run; made once, and put back to their beginning before each interruption. */
export class World {
  readonly path: string
  readonly #golden: readonly string[]
  #runs = 0

  private constructor(directory: string, golden: readonly string[]) {
    this.path = directory
    this.#golden = golden
  }

  /** Makes the image, and unpacks it plainly: what all others have to equal. */
  static async make(directory: string): Promise<World> {
    await makeImage(path.join(directory, 'images'), 'base', { layers })
    const bundle = path.join(directory, 'golden')
    await new Koci().unpack({ image: `${directory}/images:base`, bundle })
    return new World(directory, describeTree(path.join(bundle, 'rootfs')))
  }

  get store(): string {
    return path.join(this.path, 'store')
  }

  get bundle(): string {
    return path.join(this.path, `bundle${this.#runs}`)
  }

  /** The arguments of an operation. */
  args(operation: Operation): string[] {
    const { store, bundle } = this
    switch (operation) {
      case 'unpack':
        return [
          'unpack',
          '--use',
          `cache:dir=${store}`,
          '--use',
          'overlay',
          '--image',
          `${this.path}/images:base`,
          bundle,
        ]
      case 'extract':
        return ['unpack', '--no-hooks', '--image', `${this.path}/images:base`, bundle]
      case 'repack':
        return ['repack', '--image', `${this.path}/images:new`, bundle]
      case 'refresh':
        return ['repack', '--refresh-bundle', '--image', `${this.path}/images:new`, bundle]
      case 'mount':
        return ['mount', bundle]
      case 'gc':
        return ['cache', 'gc', '--dir', store, '--keep-bytes', '0']
    }
  }

  /** Puts everything where the operation begins. */
  async begin(operation: Operation): Promise<void> {
    await this.clear()
    this.#runs += 1
    if (operation === 'unpack' || operation === 'extract') return
    await this.run('unpack')
    if (operation === 'gc' || operation === 'mount') await this.#umount()
    if (operation === 'gc') rmSync(this.bundle, { recursive: true })
    if (operation === 'repack' || operation === 'refresh') this.#change()
  }

  /** Does an operation in this process. */
  async run(operation: Operation): Promise<void> {
    const { path: directory, bundle } = this
    switch (operation) {
      case 'unpack':
        await this.#app().unpack({ image: `${directory}/images:base`, bundle })
        break
      case 'extract':
        await new Koci().use(mtree()).unpack({ image: `${directory}/images:base`, bundle })
        break
      case 'repack':
      case 'refresh': {
        const refresh = operation === 'refresh'
        await this.#app().repack({ image: `${directory}/images:new`, bundle, refresh })
        break
      }
      case 'mount':
        await mountBundle(this.#app(), { bundle })
        break
      case 'gc':
        await this.#inStore(store => collect(store, { keepBytes: 0 }))
        break
    }
  }

  /** Whether an operation that makes the bundle has made it, and it can be used: another one like it is refused then. */
  async isUnpacked(operation: Operation): Promise<boolean> {
    if (operation !== 'unpack' && operation !== 'extract') return false
    try {
      const bundle = await Bundle.open(this.bundle)
      bundle.release()
      return true
    } catch {
      return false
    }
  }

  /** What doesn't hold after an operation that came to its end; nothing is left to be cleaned up then. */
  async problems(operation: Operation): Promise<string[]> {
    const problems: string[] = []
    if (operation === 'unpack' || operation === 'extract' || operation === 'mount')
      problems.push(...difference(describeTree(this.#rootfs), this.#golden, 'rootfs'))
    if (operation === 'repack' || operation === 'refresh')
      problems.push(...(await this.#problemsOfImage(operation === 'refresh')))
    problems.push(...leftIn(this.bundle, name => name.startsWith('.koci-')))
    if (operation !== 'gc' && operation !== 'extract') await this.#umount()
    problems.push(...this.mounts().map(mount => `still mounted: ${mount}`))
    await this.#inStore(async store => {
      for await (const { name, state } of verify(store))
        if (state !== 'good') problems.push(`layer ${name} is ${state}`)
      await collect(store)
    })
    await using layout = await ImageLayout.open(path.join(this.path, 'images'))
    await collectGarbage(layout)
    const own = ['blobs', 'index.json', 'oci-layout']
    return [
      ...problems,
      ...leftIn(path.join(this.store, 'v1/staging'), () => true),
      ...leftIn(path.join(this.path, 'images'), name => !own.includes(name)),
    ]
  }

  /** What was done to a bundle that has nothing to do with it. */
  untouched(): string[] {
    const rootfs = path.join(this.path, 'golden/rootfs')
    return difference(describeTree(rootfs), this.#golden, 'another bundle')
  }

  /** What is mounted beneath the world. */
  mounts(): string[] {
    return readMounts()
      .map(({ mountpoint }) => mountpoint)
      .filter(at => at.startsWith(`${this.path}/`))
  }

  /** Removes bundle, store and new image; whatever is mounted is unmounted first. */
  async clear(): Promise<void> {
    for (const mount of this.mounts()) finish('umount', [mount])
    rmSync(this.bundle, { recursive: true, force: true })
    rmSync(this.store, { recursive: true, force: true })
    await using layout = await ImageLayout.open(path.join(this.path, 'images'))
    await layout.removeRef('new')
  }

  get #rootfs(): string {
    return path.join(this.bundle, 'rootfs')
  }

  #app(): Koci {
    return new Koci().use(cache({ dir: this.store })).use(overlay())
  }

  async #umount(): Promise<void> {
    await unmountBundle(this.#app(), { bundle: this.bundle })
  }

  async #inStore(use: (store: Store) => Promise<unknown>): Promise<void> {
    const store = Store.find(this.store)
    if (!store) return
    try {
      await use(store)
    } finally {
      store.close()
    }
  }

  /** What was packed is what is seen, and nothing of it is left to be packed after a refresh. */
  async #problemsOfImage(isRefreshed: boolean): Promise<string[]> {
    const again = path.join(this.path, 'again')
    await new Koci().unpack({ image: `${this.path}/images:new`, bundle: again })
    const found = describeTree(path.join(again, 'rootfs'))
    rmSync(again, { recursive: true })
    const changes = await listDelta(this.#app(), { bundle: this.bundle })
    return [
      ...difference(found, describeTree(this.#rootfs), 'new image'),
      ...((changes.length === 0) === isRefreshed
        ? []
        : [`${changes.length} changes afterwards`]),
    ]
  }

  #change(): void {
    const rootfs = this.#rootfs
    appendFileSync(path.join(rootfs, 'etc/passwd'), '\nuser:x:1:1')
    writeFileSync(path.join(rootfs, 'new'), 'new')
    rmSync(path.join(rootfs, 'usr/share'), { recursive: true })
    mkdirSync(path.join(rootfs, 'usr/share'))
    writeFileSync(path.join(rootfs, 'usr/share/other'), 'other')
  }
}

function difference(
  found: readonly string[],
  wanted: readonly string[],
  what: string,
): string[] {
  return [
    ...wanted.filter(line => !found.includes(line)).map(line => `${what} lacks ${line}`),
    ...found.filter(line => !wanted.includes(line)).map(line => `${what} has ${line}`),
  ]
}

function leftIn(directory: string, isLeft: (name: string) => boolean): string[] {
  if (!existsSync(directory)) return []
  return readdirSync(directory)
    .filter(isLeft)
    .map(name => `left behind: ${path.join(directory, name)}`)
}
