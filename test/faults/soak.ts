#!/usr/bin/env node
// npm run soak: koci is killed at every mutating system call of every operation, one after the other, and run again. All
// points are visited, in an order that the seed decides; a failure prints the point, which can be given again.
import { spawnSync } from 'node:child_process'
import { rmSync } from 'node:fs'
import path from 'node:path'
import yargs from 'yargs'
import { makeMemoryDir } from '../support/memory-dir.ts'
import { namespace } from '../support/namespaces.ts'
import { pointsOf, type Point } from './inject.ts'
import { interrupt } from './interrupt.ts'
import { operations, World, type Operation } from './world.ts'

const args = await yargs(process.argv.slice(2))
  .scriptName('npm run soak --')
  .usage(
    '$0 [options]\n\nKills koci at every system call that changes something; needs root and strace.',
  )
  .options({
    only: { array: true, choices: operations, description: 'these operations [all]' },
    at: { string: true, description: 'only this point, as call:when' },
    seconds: { number: true, default: Infinity, description: 'end after so long' },
  })
  .strict()
  .parseAsync()

// in a mount namespace of its own nothing stays mounted, whatever becomes of it
if (namespace === undefined) {
  const flags = ['-m', '--propagation', 'private', process.execPath, ...process.argv.slice(1)]
  const env = { ...process.env, KOCI_TEST_NAMESPACE: 'host' }
  const { status, error } = spawnSync('unshare', flags, { stdio: 'inherit', env })
  if (error) console.error(`unshare: ${error.message}`)
  process.exit(status ?? 1)
}

const directory = makeMemoryDir('koci-soak-')
const world = await World.make(directory)
const end = performance.now() + args.seconds * 1000
let visited = 0
let failed = 0
try {
  for (const operation of args.only ?? operations) {
    const points = await pointsToVisit(operation)
    console.log(`${operation}: ${points.length} points`)
    for (const point of points) {
      if (performance.now() > end) break
      const problems = await interrupt(world, operation, point)
      visited += 1
      if (problems.length === 0) continue
      failed += 1
      console.log(`FAILED ${operation} --at ${point.call}:${point.when}`)
      for (const problem of problems) console.log(`  ${problem}`)
    }
  }
} finally {
  await world.clear()
  rmSync(directory, { recursive: true })
}
console.log(`${visited} interruptions, ${failed} failed`)
process.exitCode = failed === 0 ? 0 : 1

async function pointsToVisit(operation: Operation): Promise<Point[]> {
  const [call, when] = args.at?.split(':') ?? []
  if (call !== undefined) return [{ call, when: Number(when ?? 1) }]
  await world.begin(operation)
  return pointsOf(world.args(operation), path.join(directory, 'trace'))
}
