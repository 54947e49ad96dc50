// What an unpack would do, in a line for each layer: for --dry-run.
import type { Koci } from '../lib/application.ts'
import type { ExplainOptions } from '../lib/explain.ts'
import type { Session } from './session.ts'
import { sizeOf } from './size-of.ts'

/** Prints it; `target` is what would be made. */
export async function sayUnpack(
  session: Session,
  app: Koci,
  options: ExplainOptions,
  target: string,
): Promise<void> {
  const { explainUnpack } = await import('../lib/explain.ts')
  const { layers, obstacle } = await explainUnpack(app, { ...options, signal: session.signal })
  if (obstacle) throw obstacle
  if (session.json) {
    const toJson = layers.map(({ layer, foundBy, dir }) => {
      const { digest, diffID, size } = layer
      return { digest, diffID, size, by: foundBy ?? null, dir: dir ?? null }
    })
    session.printJson({ target, layers: toJson })
    return
  }
  for (const { layer, foundBy } of layers)
    session.print(
      foundBy === undefined
        ? `would extract: ${layer.digest} (${sizeOf(layer.size)})`
        : `would use what ${foundBy} has: ${layer.digest}`,
    )
  session.print(`would make: ${target}`)
}
