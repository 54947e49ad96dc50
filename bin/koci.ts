#!/usr/bin/env node
// The program's start: makes sure of the Node it runs on, answers --version, and loads the rest only then.
// An old Node has to get through this file, so it is plain old JavaScript that imports nothing new by name.
import module from 'node:module'
import process from 'node:process'
import { cacheDirectory } from './cache-directory.ts'
import { resolveOwnModules } from './own-modules.ts'
import { programName } from './program-name.ts'
import { printVersion } from './version.ts'

const [major = 0, minor = 0] = process.versions.node.split('.').map(Number)

if (major < 22 || major === 23 || (major === 22 && minor < 18)) {
  process.stderr.write(
    programName +
      ': this is Node ' +
      process.versions.node +
      ', and koci needs 22.18 or later, or 24\n',
  )
  process.exitCode = 1
} else {
  start(process.argv.slice(2))
}

function start(args: string[]): void {
  const cache = cacheDirectory()
  if (cache) module.enableCompileCache(cache)
  resolveOwnModules()
  if (args.length === 1 && (args[0] === '--version' || args[0] === '-v')) {
    printVersion()
    return
  }
  import('./main.ts').then(
    function run(main) {
      return main.main(args)
    },
    function fail(error) {
      process.stderr.write(programName + ': ' + String(error) + '\n')
      process.exitCode = 1
    },
  )
}
