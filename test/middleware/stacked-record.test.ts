// cache(), overlay() and mtree(): if the upper directory can't be listed, the mounted rootfs is compared with a record that
// is put together from those of the layers. What it says is what the upper directory says.
import * as fs from 'node:fs'
import path from 'node:path'
import t from 'tap'
import * as fc from 'fast-check'
import { Koci, listDelta, unmountBundle, type Driver } from '../../lib/index.ts'
import { cache } from '../../middleware/cache/index.ts'
import { mtree } from '../../middleware/mtree/index.ts'
import { overlay } from '../../middleware/overlay/index.ts'
import { bound } from '../support/differential.ts'
import { makeImage, type TestLayer } from '../support/image.ts'
import { anyImage, toMembers } from '../support/image-arbitrary.ts'
import { memoryParent } from '../support/memory-dir.ts'
import { namespace, runInNamespaces } from '../support/namespaces.ts'
import { peerLayers } from '../support/peer-image.ts'
import { temporary } from '../support/peers.ts'
import { asLines } from '../support/rootfs.ts'
import '../support/seed.ts'

const rootless = namespace === 'user'
t.setTimeout((900 + bound(60)) * 1000)

/** The driver, but that it fails to list. */
function speechless(driver: Driver): Driver {
  return {
    ...driver,
    delta() {
      throw new Error('no luck')
    },
  }
}

interface Listed {
  /** By the upper directory, and by comparing. */
  readonly upper: string[]
  readonly compared: string[]
}

/** Unpacks an image, does something to the rootfs, and lists what changed in both ways. */
async function list(
  base: string,
  layers: readonly TestLayer[],
  change: (rootfs: string) => void,
): Promise<Listed> {
  fs.mkdirSync(base)
  const image = await makeImage(path.join(base, 'images'), 'test', {
    layers,
    compression: 'none',
  })
  const store = cache({ dir: path.join(base, 'store'), durable: false })
  const bundle = path.join(base, 'bundle')
  const app = new Koci().use(store).use(overlay()).use(mtree())
  const { rootfs } = await app.unpack({ image, bundle, rootless })
  try {
    t.notOk(fs.readdirSync(bundle).some(name => name.endsWith('.mtree')))
    change(rootfs)
    const upper = asLines(await listDelta(app, { bundle }))
    const falling = new Koci().use(store).use(speechless(overlay())).use(mtree())
    const compared = asLines(await listDelta(falling, { bundle, fallback: true }))
    return { upper, compared }
  } finally {
    await unmountBundle(app, { bundle })
  }
}

function add(rootfs: string): void {
  fs.writeFileSync(path.join(rootfs, 'added'), 'x')
}

function deeds(rootfs: string): void {
  add(rootfs)
  const [directory] = fs
    .readdirSync(rootfs, { withFileTypes: true })
    .filter(entry => entry.isDirectory())
  if (directory) fs.rmSync(path.join(rootfs, directory.name), { recursive: true })
}

async function inNamespace(): Promise<void> {
  await t.test('an image of everything: nothing changed, and something did', async t => {
    const base = temporary(t, 'stacked-record', memoryParent())
    const layers = rootless ? peerLayers.slice(0, 1) : peerLayers
    const same = await list(path.join(base, 'same'), layers, () => {})
    t.strictSame(same, { upper: [], compared: [] })
    const changed = await list(path.join(base, 'changed'), layers, deeds)
    t.ok(changed.upper.includes('A added'))
    t.strictSame(changed.compared, changed.upper)
  })

  await t.test('images made up', async t => {
    const base = temporary(t, 'stacked-record', memoryParent())
    let run = 0
    await fc.assert(
      fc.asyncProperty(anyImage({ privileged: !rootless }), async image => {
        const home = path.join(base, String(run++))
        // nothing is deleted: the number of names of what remains is seen by comparing only
        const { upper, compared } = await list(home, toMembers(image), add)
        fs.rmSync(home, { recursive: true, force: true })
        if (upper.join('\n') !== compared.join('\n'))
          throw new Error(`upper:\n${upper.join('\n')}\ncompared:\n${compared.join('\n')}`)
      }),
      { numRuns: bound(15), interruptAfterTimeLimit: bound(20) * 1000 },
    )
    t.pass('both ways list the same')
  })

  await t.test('a bundle that is not mounted is refused', async t => {
    const base = temporary(t, 'stacked-record', memoryParent())
    const layers = [[{ name: 'x' }]]
    const image = await makeImage(path.join(base, 'images'), 'test', { layers })
    const store = cache({ dir: path.join(base, 'store'), durable: false })
    const app = new Koci().use(store).use(speechless(overlay())).use(mtree())
    const bundle = path.join(base, 'bundle')
    await app.unpack({ image, bundle, rootless })
    await unmountBundle(app, { bundle })
    await t.rejects(listDelta(app, { bundle, fallback: true }), {
      code: 'ERR_KOCI_ROOTFS_NOT_MOUNTED',
      message: /run koci mount first/,
    })
  })
}

if (namespace) await inNamespace()
else await runInNamespaces(t, import.meta.filename)
