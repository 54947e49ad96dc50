// The guide is true: its programs run, in the order in which they stand there.
import { spawnSync } from 'node:child_process'
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { stripTypeScriptTypes } from 'node:module'
import path from 'node:path'
import t from 'tap'
import { dir, file, image } from '../lib/testing/index.ts'
import { koci, plainly } from './bin/run-koci.ts'
import { memoryParent } from './support/memory-dir.ts'

const root = path.resolve(import.meta.dirname, '..')
const modules = {
  koci: path.join(root, 'middleware/index.ts'),
  'koci/testing': path.join(root, 'lib/testing/index.ts'),
}

const quiet = { code: 0, stdout: '', stderr: '' }

t.setTimeout(900_000)

await t.test('every program of docs/writing-a-driver.md runs', async t => {
  const cwd = mkdtempSync(path.join(memoryParent(), 'koci-guide-'))
  t.teardown(() => rmSync(cwd, { recursive: true, force: true }))
  await image().layer(dir('d'), file('d/x', 'x')).layer(file('y')).save(`${cwd}/images`, 'test')
  writeFileSync(path.join(cwd, 'package.json'), '{"type":"module"}')
  const text = readFileSync(path.join(root, 'docs/writing-a-driver.md'), 'utf8')
  const programs = [...text.matchAll(/(?:^`([\w-]+\.ts)`:\n\n)?^```ts\n(.*?)^```/gms)]
  t.equal(programs.length, 5)
  for (const [at, [, name, code = '']] of programs.entries()) {
    const program = path.join(cwd, name ?? `program-${at}.ts`)
    const source = code.replaceAll(/from '(koci(?:\/testing)?)'/g, (_, module: string) => {
      return `from '${modules[module as keyof typeof modules]}'`
    })
    writeFileSync(program, source)
    const [command, args] = plainly(process.execPath, [program])
    const ran = spawnSync(command, args, {
      cwd,
      encoding: 'utf8',
      timeout: 200_000,
      env: { ...process.env, TMPDIR: cwd },
    })
    t.equal(ran.status, 0, `${program}: ${ran.stdout}${ran.stderr}`)
    t.equal(ran.stderr, '')
    if (at === 0) t.match(ran.stdout, /^layer 0: \d+ ms\nlayer 1: \d+ ms\n$/)
    if (at === 1) t.match(ran.stdout, /\[ '', 'data' \]/)
    if (at === 3) t.match(ran.stdout, /pass 16\b/)
    if (at === 4) t.match(ran.stdout, /etc\/motd file 644/)
  }

  const rootless = process.geteuid?.() === 0 ? [] : ['--rootless']
  const unpack = ['unpack', '--image', 'images:test', ...rootless, '--use']
  t.same(await koci([...unpack, './shelf.ts:directory=shelf', 'file'], { cwd }), quiet)
  t.ok(existsSync(path.join(cwd, 'shelf')))

  const [, manifest = ''] = /^`package.json`:\n\n```json\n(.*?)^```/ms.exec(text) ?? []
  const { name, exports } = JSON.parse(manifest)
  const home = path.join(cwd, 'node_modules', name)
  mkdirSync(home, { recursive: true })
  writeFileSync(path.join(home, 'package.json'), manifest)
  const source = readFileSync(path.join(cwd, 'shelf.ts'), 'utf8')
  writeFileSync(path.join(home, exports), stripTypeScriptTypes(source))
  const env = { NODE_PATH: path.join(cwd, 'node_modules') }
  t.same(await koci([...unpack, `${name}:directory=other`, 'package'], { cwd, env }), quiet)
  const about = await koci(['explain', '--bundle', 'package'], { cwd, env })
  t.match(about.stdout, /^ {2}shelf +\(bundle\)/m, 'a bundle remembers it')
  t.match(about.stdout, /found by shelf in/)
})
