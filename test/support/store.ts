// A store, an image of three layers, and unpacking it again and again.
import { existsSync, mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { Koci, type Driver } from '../../lib/index.ts'
import type { LayerContext } from '../../lib/context.ts'
import type { Middleware } from '../../lib/compose.ts'
import type { UnpackOptions, UnpackResult } from '../../lib/unpack.ts'
import { cache } from '../../middleware/cache/index.ts'
import {
  encodeCompletion,
  readCompletion,
  type Completion,
} from '../../middleware/cache/completion.ts'
import { Store } from '../../middleware/cache/store.ts'
import { makeImage, type TestLayer } from './image.ts'
import { stacker } from './stacker.ts'

export type Used = Driver | Middleware<LayerContext>

export const threeLayers: readonly TestLayer[] = [
  [
    { name: 'a', body: 'one' },
    { name: 'd/', type: 'directory' },
    { name: 'd/x', body: 'x' },
  ],
  [{ name: 'd/.wh.x' }, { name: 'b', body: 'two'.repeat(3000) }],
  [{ name: 'c', body: 'three' }],
]

export interface Outcome extends UnpackResult {
  readonly app: Koci
  /** Indices of the layers that went through the end of the chain. */
  readonly extracted: readonly number[]
}

export class Workshop {
  readonly base: string
  readonly image: string
  readonly dir: string
  #bundles = 0

  private constructor(base: string, image: string) {
    this.base = base
    this.image = image
    this.dir = path.join(base, 'store')
  }

  static async open(
    base: string,
    layers: readonly TestLayer[] = threeLayers,
  ): Promise<Workshop> {
    mkdirSync(base, { recursive: true })
    const image = await makeImage(path.join(base, 'images'), 'a', { layers })
    return new Workshop(base, image)
  }

  /** The store, which has to be there. */
  get store(): Store {
    const store = Store.find(this.dir)
    if (!store) throw new RangeError('no store')
    return store
  }

  /** Names of complete layers. */
  get names(): string[] {
    return existsSync(this.dir) ? this.store.names() : []
  }

  /** What a dead or careless process would leave. */
  get staging(): string[] {
    return readdirSync(path.join(this.dir, 'v1/staging'))
  }

  nextBundle(): string {
    return path.join(this.base, `bundle-${this.#bundles++}`)
  }

  /** Removes the blobs of the layers: whoever extracts one fails from now on. */
  async loseBlobs(): Promise<void> {
    const { layers } = await this.unpack()
    for (const { digest } of layers)
      rmSync(path.join(this.base, 'images/blobs', digest.replace(':', '/')))
  }

  /** Unpacks with these drivers around the store, and a stack. */
  async unpack(
    {
      outside = [],
      inside = [],
      store = cache({ dir: this.dir }),
    }: { outside?: readonly Used[]; inside?: readonly Used[]; store?: Driver } = {},
    options: Partial<UnpackOptions> = {},
  ): Promise<Outcome> {
    const extracted: number[] = []
    const count: Used = async (ctx, next) => {
      await next()
      if (ctx.layer.extracted) extracted.push(ctx.layer.index)
    }
    const app = new Koci()
    for (const driver of [...outside, store, ...inside, stacker(), count]) app.use(driver)
    const rootless = process.geteuid?.() !== 0
    const bundle = this.nextBundle()
    const result = await app.unpack({ image: this.image, bundle, rootless, ...options })
    return { ...result, app, extracted: extracted.sort((a, b) => a - b) }
  }
}

/** Changes what the completion record of a layer says, soundly. */
export function amend(store: Store, name: string, changes: Partial<Completion>): void {
  const file = store.completion(name)
  const found = readCompletion(file)
  if (!found) throw new RangeError(`${name} isn't complete`)
  writeFileSync(file, encodeCompletion({ ...found, ...changes }))
}
