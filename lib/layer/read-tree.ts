// Layers are read into a tree in memory, and files of theirs again, when it is known which ones matter.
import { createHash } from 'node:crypto'
import { createError } from '../errors.ts'
import type { ImageTree, Inode } from './image-tree.ts'
import type { Layer } from './layer.ts'

/**
 * Applies layers to a tree, in order; each is verified at its end.
 * @throws {KociError} what `ImageTree` and `Layer.entries` throw; {SystemError} ERR_KOCI_ABORTED
 */
export async function readTree(
  tree: ImageTree,
  layers: readonly Layer[],
  signal?: AbortSignal,
): Promise<void> {
  for (const layer of layers) {
    tree.beginLayer()
    for await (const { header } of layer.entries()) {
      throwIfAborted(layer, signal)
      tree.apply(header)
    }
  }
}

/** A file in a layer, found again; its body can be read until the next one is asked for. */
export interface FoundFile<T> {
  readonly wanted: T
  readonly body: AsyncIterable<Buffer>
}

/** Finds files again by where they come from: layer by layer, in the order of their entries. */
export class WantedFiles<T> {
  readonly #byLayer = new Map<number, Map<number, T>>()

  /** `inode` is that of a file. */
  add({ source }: Inode, wanted: T): void {
    if (!source) return
    const entries = this.#byLayer.get(source.layer) ?? new Map<number, T>()
    this.#byLayer.set(source.layer, entries.set(source.entry, wanted))
  }

  /** Layers that hold none of them aren't read; the others are read, and verified, to their ends. */
  async *read(layers: readonly Layer[], signal?: AbortSignal): AsyncGenerator<FoundFile<T>> {
    for (const layer of layers) {
      const entries = this.#byLayer.get(layer.index)
      if (!entries) continue
      let at = 0
      for await (const { body } of layer.entries()) {
        throwIfAborted(layer, signal)
        const wanted = entries.get(at++)
        if (wanted !== undefined) yield { wanted, body }
      }
    }
  }
}

/** The SHA-256 sum of a body, as hex. */
export async function sumOf(body: AsyncIterable<Buffer>): Promise<string> {
  const hash = createHash('sha256')
  for await (const chunk of body) hash.update(chunk)
  return hash.digest('hex')
}

function throwIfAborted(layer: Layer, signal: AbortSignal | undefined): void {
  if (signal?.aborted)
    throw createError('ABORTED', { subject: `layer ${layer.digest}` }, signal.reason)
}
