// What --version says. Read by an old Node, too: nothing new here.
import fs from 'node:fs'
import path from 'node:path'
import process from 'node:process'
import { programName } from './program-name.ts'

/** The version of the image specification that koci follows. */
export const imageSpec = '1.1.1'
/** The version of the runtime specification that bundles follow. */
export const runtimeSpec = '1.3.0'

export function printVersion(): void {
  process.stdout.write(
    programName +
      ' version ' +
      shownVersion() +
      '\n' +
      'image spec: ' +
      imageSpec +
      '\n' +
      'runtime spec: ' +
      runtimeSpec +
      '\n' +
      'node: ' +
      process.version +
      '\n',
  )
}

/** Under umoci's name, the umoci whose commands and flags are there: scripts compare it. */
function shownVersion(): string {
  return programName === 'umoci' ? '0.6.0+koci.' + readVersion() : readVersion()
}

/** From package.json, one directory up from the source and two from what is built. */
function readVersion(): string {
  for (const up of ['..', '../..']) {
    const file = path.join(import.meta.dirname, up, 'package.json')
    if (fs.existsSync(file)) return JSON.parse(fs.readFileSync(file, 'utf8')).version
  }
  return 'unknown'
}
