// The four changes that repacking is measured with: a file appended to, one new, one removed, one with another mode.
import { appendFileSync, chmodSync, rmSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { BenchError } from './bench-error.ts'
import { manyRoot } from './corpus.ts'

let changes = 0

/** Makes four changes that nobody made before; returns the paths. */
export function changeFour(bundle: string, text: string): string[] {
  const number = changes++
  const directory = (digit: number): string =>
    `${manyRoot}/${Math.floor(number / 40) % 2}${digit}`
  const name = String(number % 40)
  const paths = [
    `${directory(0)}/${name}`,
    `${directory(1)}/new-${number}`,
    `${directory(2)}/${name}`,
    `${directory(3)}/${name}`,
  ]
  const [appended = '', added = '', removed = '', changed = ''] = paths.map(file =>
    path.join(bundle, 'rootfs', file),
  )
  appendFileSync(appended, text)
  writeFileSync(added, text)
  rmSync(removed)
  chmodSync(changed, 0o600)
  return paths
}

/** A repack that is fast because it overlooks something isn't. */
export function expectChanges(
  stdout: string,
  expected: readonly string[],
  variant: string,
): void {
  const { changes } = JSON.parse(stdout) as { changes: { path: string }[] }
  const found = new Set(changes.map(each => each.path))
  const overlooked = expected.filter(file => !found.has(file))
  const files = [...found].filter(file => /\/(new-)?\d+\/(new-)?\d+$/.test(file))
  if (overlooked.length > 0 || files.length !== expected.length)
    throw new BenchError(
      `koci, ${variant}: found ${files.join(', ') || 'nothing'} of ${expected.join(', ') || 'nothing'}`,
    )
}
