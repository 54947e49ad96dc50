// Every example runs, and prints what its last comment says.
import { spawnSync } from 'node:child_process'
import { globSync, readFileSync } from 'node:fs'
import path from 'node:path'
import t from 'tap'

const examples = path.resolve(import.meta.dirname, '../examples')

for (const name of globSync('*.ts', { cwd: examples }).sort()) {
  const source = readFileSync(path.join(examples, name), 'utf8')
  const [, expected] = source.split('\n// Output:\n')
  if (expected === undefined) continue
  await t.test(`examples/${name} prints what it says`, { timeout: 120_000 }, async t => {
    const { status, stdout, stderr } = spawnSync(
      process.execPath,
      [path.join(examples, name)],
      {
        encoding: 'utf8',
        timeout: 90_000,
      },
    )
    t.equal(status, 0, stderr)
    t.equal(stdout, expected.replaceAll(/^\/\/ /gm, ''))
    t.equal(stderr, '')
  })
}

await t.test(
  'the demo holds, prints lines that fit a terminal, and leaves nothing',
  { timeout: 180_000 },
  async t => {
    const directory = t.testdir()
    const { status, stdout, stderr } = spawnSync(
      process.execPath,
      [path.join(examples, 'demo.ts')],
      {
        encoding: 'utf8',
        timeout: 150_000,
        env: { ...process.env, TMPDIR: directory },
      },
    )
    t.equal(status, 0, stderr)
    t.match(stdout, /All of it held/)
    for (const line of stdout.split('\n')) t.ok(line.length <= 80, line)
    t.same(globSync('*', { cwd: directory }), [])
  },
)
