// Layers as EROFS images: read-only, compact, one file each, shared by all bundles. The driver only keeps layers and shows
// them; overlay() beside it stacks them, as it does with any directories. For root; needs erofs-utils. It isn't squashfs that
// they are kept as: that has times of whole seconds, in 32 bits, so that a rootfs would not be what its image says.
// koci unpack --image images:alpine --use ./examples/erofs.ts --use overlay bundle
import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, readFileSync } from 'node:fs'
import { mkdir, mkdtemp, rename, rm, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { promisify } from 'node:util'
import type { Driver, LayerContext } from '../middleware/index.ts' // 'koci' in your program

const run = promisify(execFile)

/** Keeps layers as `<key>/image` in a directory, mounts them for the length of a run, and forgets nothing. */
export default function erofs({
  directory = '/var/lib/koci-erofs',
}: { directory?: string } = {}): Driver {
  const placeOf = ({ layer, extraction }: LayerContext): string => {
    const id = layer.needsBelow === undefined ? layer.diffID : layer.chainID
    const how = createHash('sha256').update(JSON.stringify([id, extraction]))
    return path.join(directory, how.digest('hex'))
  }

  /** An overlay keeps what it needs of a mount; ours are for whoever looks at the layer's directory meanwhile. */
  async function show(ctx: LayerContext, place: string): Promise<string> {
    const tree = path.join(place, 'tree')
    try {
      await run('mount', ['-t', 'erofs', '-o', 'ro,loop', path.join(place, 'image'), tree])
      ctx.closing(() => run('umount', [tree]))
    } catch (error) {
      // the same layer can be in an image twice, and the new one of a repack is met by two steps
      const isMounted = await run('mountpoint', ['-q', tree]).catch(() => undefined)
      if (!isMounted) throw error
    }
    return tree
  }

  return {
    name: 'erofs',
    requires: ['overlay'],
    options: { directory: { type: 'string', description: 'where the images are' } },

    async locate(ctx, next) {
      const place = placeOf(ctx)
      if (!existsSync(place)) return next()
      const report = JSON.parse(readFileSync(path.join(place, 'report.json'), 'utf8'))
      const { dialect } = ctx.extraction
      const dir = await show(ctx, place)
      ctx.layer.place({ dir, by: 'erofs', verified: true, dialect, report })
    },

    async layer(ctx, next) {
      await mkdir(directory, { recursive: true, mode: 0o700 })
      const staging = await mkdtemp(path.join(directory, '.new-'))
      ctx.closing(() => rm(staging, { recursive: true, force: true }))
      const files = path.join(staging, 'files')
      await mkdir(files)
      ctx.layer.target = files
      await next()
      if (ctx.layer.taints.length > 0) return
      const image = path.join(staging, 'image')
      // the short form of an inode has no time
      await run('mkfs.erofs', ['--quiet', '-Eforce-inode-extended', image, files])
      const { report } = ctx.layer.placed ?? {}
      await writeFile(path.join(staging, 'report.json'), JSON.stringify(report))
      await mkdir(path.join(staging, 'tree'))
      await rm(files, { recursive: true })
      const place = placeOf(ctx)
      // another process may be faster, and the same layer may be in the image twice
      await rename(staging, place).catch(error => {
        if (!existsSync(place)) throw error
      })
      ctx.layer.move(await show(ctx, place), 'erofs')
    },
  }
}
