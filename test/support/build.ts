// What users run: the built program, made from the sources as they are.
import { spawnSync } from 'node:child_process'
import path from 'node:path'
import { childEnvironment, plainly } from '../bin/run-koci.ts'

const root = path.resolve(import.meta.dirname, '../..')

/** Builds koci into a directory beneath the sources, where its packages are found; returns the program's file. */
export function build(directory: string): string {
  const tsc = path.join(root, 'node_modules/.bin/tsc')
  const project = path.join(root, 'tsconfig.build.json')
  const { status, stdout } = spawnSync(
    ...plainly(tsc, ['-p', project, '--outDir', directory]),
    { cwd: root, env: childEnvironment(), encoding: 'utf8', timeout: 60_000 },
  )
  if (status !== 0) throw new Error(stdout)
  return path.join(directory, 'bin/koci.js')
}
