// The least that stacks layers: it wants them in directories of their own, and mounts nothing.
import { mkdirSync } from 'node:fs'
import path from 'node:path'
import type { Driver } from '../../lib/index.ts'
import { storesTrusted } from '../../middleware/cache/capabilities.ts'

/** Chooses stacked layers; one for which nobody set a target goes into the bundle. */
export function stacker(): Driver {
  return {
    name: 'stacker',
    async unpack(ctx, next) {
      ctx.extraction.choose(
        'stacker',
        'stacked',
        storesTrusted() ? 'overlay-trusted' : 'overlay-user',
      )
      await next()
    },
    async layer(ctx, next) {
      if (ctx.layer.target === undefined) {
        ctx.layer.target = await ctx.bundle.claim(`layer-${ctx.layer.index}`)
        mkdirSync(path.join(ctx.layer.target))
      }
      await next()
    },
    async mount() {},
    async delta(ctx) {
      ctx.changes = []
    },
  }
}
