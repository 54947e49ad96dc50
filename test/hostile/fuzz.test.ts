// Spoilt layers: koci reads what Go reads or refuses, makes the tree that the oracle makes of it or refuses, and never
// touches the canary, crashes, hangs, leaks, or needs much memory. Without an end: `npm run fuzz`.
import { readdirSync } from 'node:fs'
import path from 'node:path'
import t from 'tap'
import { goMissing } from '../support/go-tar.ts'
import { finish } from '../support/peers.ts'
import { ciSeed } from '../support/seed.ts'

const program = path.join(import.meta.dirname, '../fuzz/fuzz.ts')
const seconds = 15

// compiling Go's reader for the first time takes most of it
const timeout = 150_000

t.setTimeout(timeout + 5000)

await t.test(`spoilt layers for ${seconds} seconds`, { skip: goMissing() }, async t => {
  const keep = t.testdir()
  const seed = ciSeed ?? Date.now() % 2 ** 31
  const args = ['--seconds', String(seconds), '--seed', String(seed), '--keep', keep]
  const { status, stdout, stderr } = finish(process.execPath, [program, ...args], {
    env: { NODE_OPTIONS: '' },
    timeout,
  })
  t.equal(status, 0, `${stdout}${stderr}`)
  t.same(readdirSync(keep), [], 'no input failed')
  t.match(stdout, /^seed \d+\n\d+ inputs, 0 problems, \d+ MiB: /)
  t.comment(stdout.trimEnd().split('\n').at(-1))
  const [, same = '0'] = /"(?:same|applied)":(\d+)/.exec(stdout) ?? []
  t.ok(Number(same) > 5, `${same} were taken by both`)
})
