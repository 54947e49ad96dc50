// An image that is as large as one wants: whether something takes longer the larger it is.
import path from 'node:path'
import { manyRoot } from './corpus.ts'
import type { LayerRecipe } from './make-image.ts'
import { directoryEntry, fileEntry } from './tree-entries.ts'

/** A layer of so many small files, and of the directories that the four changes are made in. */
export function filesLayer(size: number): LayerRecipe {
  return {
    name: 'files',
    *entries() {
      for (const directory of path.dirname(`${manyRoot}/x`).split('/').keys())
        yield directoryEntry(
          manyRoot
            .split('/')
            .slice(0, directory + 1)
            .join('/'),
        )
      for (const half of [0, 1])
        for (let at = 0; at < 4; at += 1) {
          yield directoryEntry(`${manyRoot}/${half}${at}`)
          for (let file = 0; file < 40; file += 1)
            yield fileEntry(`${manyRoot}/${half}${at}/${file}`, Buffer.from(`${file}`))
        }
      for (let at = 0; at < size; at += 1) {
        if (at % 100 === 0) yield directoryEntry(`d${at / 100}`)
        yield fileEntry(`d${Math.floor(at / 100)}/${at}`, Buffer.from(`${at}`))
      }
    },
  }
}
