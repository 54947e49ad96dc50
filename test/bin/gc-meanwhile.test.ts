// Garbage is collected, over and over, while others write to the layout: nothing of what they make goes missing, and
// nothing of what they drop stays in the end.
import { writeFileSync } from 'node:fs'
import path from 'node:path'
import t from 'tap'
import { makeImage } from '../support/image.ts'
import { file } from '../support/members.ts'
import { temporary } from '../support/peers.ts'
import { koci, type Outcome } from './run-koci.ts'

const cwd = temporary(t, 'gc')
const run = (...args: string[]): Promise<Outcome> => koci(args, { cwd })
await makeImage(path.join(cwd, 'images'), 'a', { layers: [[file('x', 'x')], [file('y', 'y')]] })
await makeImage(path.join(cwd, 'others'), 'b', { layers: [[file('z', 'z')]] })
await makeImage(path.join(cwd, 'others'), 'dropped', { layers: [[file('w', 'w')]] })
writeFileSync(path.join(cwd, 'host'), 'from the host')

/** What each writer does, and the tag that it makes. */
const writers: Readonly<Record<string, readonly string[]>> = {
  inserted: ['insert', '--image=images:a', '--tag=inserted', 'host', '/host'],
  flat: ['flatten', '--image=images:a', '--tag=flat'],
  configured: ['config', '--image=images:a', '--tag=configured', '--config.user=1'],
  copied: ['copy', 'others:b', 'images:copied'],
  tagged: ['tag', '--image=images:a', 'tagged'],
  made: ['new', '--image=images:made'],
}

await t.test('writers and collectors at the same time', async t => {
  await run('copy', 'others:dropped', 'images')
  await run('rm', '--image=images:dropped')
  let collections = 0
  const collect = async (): Promise<void> => {
    for (let turn = 0; turn < 6; turn++) {
      const { code, stderr } = await run('gc', '--layout=images')
      if (code === 0) collections += 1
      else t.match(stderr, /\[ERR_KOCI_LOCKED\]/)
    }
  }
  const collecting = collect()
  const outcomes = await Promise.all(Object.values(writers).map(args => run(...args)))
  await collecting
  for (const [at, { code, stderr }] of outcomes.entries())
    t.match({ code, stderr }, { code: 0, stderr: '' }, Object.keys(writers)[at] ?? '')
  t.comment(`${collections} collections`)

  t.equal((await run('gc', '--layout=images')).code, 0)
  const { stdout } = await run('ls', '--layout=images')
  t.same(stdout.split('\n').slice(0, -1).sort(), ['a', ...Object.keys(writers)].sort())
  const report = await run('verify', '--json', '--layout=images')
  t.match(JSON.parse(report.stdout), { unused: 0, problems: { length: 0 } })
})
