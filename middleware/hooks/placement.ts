// Where a command says that a layer is: what can't be is refused before anything is believed.
import type { LayerContext } from '../../lib/context.ts'
import type { Layer } from '../../lib/layer/layer.ts'
import type { HookCommand } from './hooks-file.ts'
import { refused, type Reply } from './reply.ts'

/** What the layers that these commands place are said to be placed by. */
const placer = 'hooks'

/** A command has the layer. */
export function placeFound(
  { layer, extraction }: LayerContext,
  command: HookCommand,
  reply: Reply,
): void {
  const { dir, rootfs, verified = false, report } = reply
  if ((dir === undefined) === (rootfs === undefined))
    throw refused(command, 'it has to say either dir or rootfs')
  if (rootfs && extraction.layering === 'stacked')
    throw refused(command, 'layers are stacked: each has to be in a dir')
  layer.place({ by: placer, verified, report, ...(dir !== undefined && { dir }) })
}

/** A command moved the layer that it was told of, if its reply has a directory. */
export function move(command: HookCommand, layer: Layer, { dir }: Reply = {}): void {
  if (dir === undefined) return
  if (layer.placed?.dir === undefined)
    throw refused(command, 'the layer is in the rootfs, and not in a dir that could have moved')
  layer.move(dir, placer)
}
