// Hooks from the command line: which file counts, how they are turned off, and what the commands inherit.
import { spawnSync } from 'node:child_process'
import { chmodSync, existsSync, mkdirSync, readFileSync, renameSync } from 'node:fs'
import path from 'node:path'
import t, { type Test } from 'tap'
import { hookPlace, hookTable } from '../support/hooks.ts'
import { makeImage } from '../support/image.ts'
import { childEnvironment, koci, plainly, program } from './run-koci.ts'

const rootless = process.geteuid?.() === 0 ? [] : ['--rootless']

/** A hook that leaves `ran` and its descriptors; `file` isn't where koci looks by itself. */
async function setUp(t: Test) {
  const place = hookPlace(t)
  const { base } = place
  const image = await makeImage(path.join(base, 'images'), 'a', { layers: [[{ name: 'x' }]] })
  const script = place.script(
    'hook',
    `echo "$1" >> ${base}/ran; ls /proc/self/fd > ${base}/fds; env > ${base}/env`,
  )
  const file = place.file(hookTable('unpack.ociv1.layer.pre-extract', script))
  const unpack = ['unpack', '--image', image, ...rootless]
  return { ...place, file, unpack, ran: () => existsSync(`${base}/ran`) }
}

await t.test(
  'a file that is named, or in the place for it, is used; --no-hooks turns it off',
  async t => {
    const { base, file, unpack, ran } = await setUp(t)
    const env = { XDG_CONFIG_HOME: `${base}/config` }
    await koci([...unpack, `${base}/b1`], { env })
    t.notOk(ran())
    t.match(await koci([...unpack, '--hooks', file, `${base}/b2`], { env }), {
      code: 0,
      stderr: '',
    })
    t.ok(ran())
    renameSync(`${base}/ran`, `${base}/ran.1`)
    mkdirSync(`${base}/config/koci`, { recursive: true, mode: 0o755 })
    renameSync(file, `${base}/config/koci/hooks.toml`)
    t.match(await koci([...unpack, '--no-hooks', `${base}/b3`], { env }), { code: 0 })
    t.notOk(ran())
    t.match(await koci([...unpack, `${base}/b4`], { env, cwd: base }), { code: 0, stderr: '' })
    t.ok(ran())
    const variables = readFileSync(`${base}/env`, 'utf8').split('\n')
    t.same(variables.filter(line => !/^(_|SHLVL|OLDPWD)=/.test(line)).sort(), [
      '',
      'KOCI_HOOK=unpack.ociv1.layer.pre-extract',
      'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
      'PWD=/',
    ])
  },
)

await t.test('mistakes', async t => {
  const { base, file, unpack } = await setUp(t)
  const cases: [words: string[], message: RegExp][] = [
    [['--hooks', file, '--no-hooks'], /--no-hooks: can not go together with --hooks/],
    [['--hooks', `${base}/none`], /none: ENOENT.*ERR_KOCI_IO/],
    [['--hooks', ''], /--hooks: is empty/],
    [
      ['--hooks', file, '--use', 'hooks'],
      /--hooks: hooks are in the chain already, by --use - leave out --hooks.*--use hooks:file=PATH/,
    ],
    [
      ['--no-hooks', '--use', `hooks:file=${file}`],
      /--no-hooks: hooks are in the chain already/,
    ],
  ]
  for (const [words, message] of cases) {
    const { code, stderr } = await koci([...unpack, ...words, `${base}/bundle`])
    t.equal(code, 1)
    t.match(stderr, message)
  }
  chmodSync(file, 0o664)
  const { code, stderr } = await koci([...unpack, '--hooks', file, `${base}/bundle`])
  t.equal(code, 1)
  t.match(
    stderr,
    /hooks\.toml: not trusted: .* can be written by its group - only root and you/,
  )
  t.notOk(existsSync(`${base}/bundle`))
})

await t.test(
  'H07: a descriptor that koci itself was started with does not reach commands',
  async t => {
    const { base, file, unpack } = await setUp(t)
    const [command, args] = plainly(process.execPath, [
      program,
      ...unpack,
      '--hooks',
      file,
      `${base}/bundle`,
    ])
    const { status } = spawnSync(
      '/bin/bash',
      ['-c', 'exec 50</etc/passwd 7</etc/passwd; exec "$@"', 'sh', command, ...args],
      { env: childEnvironment(), timeout: 60_000 },
    )
    t.equal(status, 0)
    t.equal(readFileSync(`${base}/fds`, 'utf8'), '0\n1\n2\n3\n', 'the fourth is of ls')
  },
)
