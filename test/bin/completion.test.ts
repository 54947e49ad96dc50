import { spawnSync } from 'node:child_process'
import { chmodSync, mkdirSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import t from 'tap'
import { completeLine } from '../../bin/completion/words.ts'
import { ImageLayout } from '../../lib/layout/image-layout.ts'
import { makeImage } from '../support/image.ts'
import { missing } from '../support/peers.ts'
import { childEnvironment, koci, plainly, program } from './run-koci.ts'

const cwd = t.testdir()
const images = path.join(cwd, 'images')
await makeImage(images, 'web', { layers: [] })
await makeImage(images, 'webby', { layers: [] })

const cases: [line: string, words: string[]][] = [
  ['koci unp', ['unpack']],
  ['koci fl', ['flatten']],
  ['koci r', ['repack', 'remove', 'rm', 'raw']],
  ['koci raw a', ['add-layer']],
  ['koci help unp', ['unpack']],
  ['koci help raw run', ['runtime-config']],
  ['koci --strict un', ['unpack', 'unmount']],
  ['koci --log debug unp', ['unpack']],
  ['koci --log w', ['warn']],
  ['koci unpack --root', ['--rootless']],
  ['koci unpack --ima', ['--image=']],
  ['koci raw unpack --keep', ['--keep-dirlinks']],
  ['koci repack --compress z', ['zstd']],
  ['koci repack --compress=g', ['--compress=gzip']],
  ['koci unpack --use c', ['cache']],
  [`koci unpack --image ${images}:we`, [`${images}:web`, `${images}:webby`]],
  [`koci unpack --image=${images}:webb`, [`--image=${images}:webby`]],
  [`koci diff ${images}:webb`, [`${images}:webby`]],
  [`koci diff --platform a/b ${images}:web ${images}:webb`, [`${images}:webby`]],
  [`koci cp ${images}:webb`, [`${images}:webby`]],
  ['koci copy --format l', ['layout']],
  [`koci unpack ${images}:webb`, []],
  [`koci unpack --image ${images}`, []],
  ['koci unpack --image nowhere:', []],
  ['koci unpack b', []],
  ['koci nonsense --x=', []],
  ['koci nonsense ', []],
  ['koci --__proto__=', []],
]

for (const [line, words] of cases)
  await t.test(line, async t => {
    const found = await completeLine(line)
    t.same(new Set(found), new Set(words))
  })

await t.test('after the program come all commands', async t => {
  const words = await completeLine('koci ')
  for (const word of ['unpack', 'raw', 'help', 'completion']) t.ok(words.includes(word), word)
})

await t.test('a name that is no tag is not offered', async t => {
  const layout = await ImageLayout.open(images)
  const [entry] = await layout.roots()
  await layout.close()
  const annotations = { 'org.opencontainers.image.ref.name': '$(touch x)\n;' }
  const index = { schemaVersion: 2, manifests: [{ ...entry, annotations }] }
  const other = path.join(cwd, 'other')
  mkdirSync(path.join(other, 'blobs/sha256'), { recursive: true })
  writeFileSync(path.join(other, 'oci-layout'), '{"imageLayoutVersion":"1.0.0"}')
  writeFileSync(path.join(other, 'index.json'), JSON.stringify(index))
  t.same(await completeLine(`koci stat --image ${other}:`), [])
})

await t.test('a shell that there is none for', async t => {
  t.match(await koci(['completion', 'tcsh']), {
    code: 1,
    stderr: /tcsh: no such shell - there/,
  })
})

/** A program `koci` for shells to find. */
const bin = path.join(cwd, 'bin')
mkdirSync(bin)
writeFileSync(path.join(bin, 'koci'), `#!/bin/sh\nexec ${process.execPath} ${program} "$@"\n`)
chmodSync(path.join(bin, 'koci'), 0o755)

function inShell(shell: string, ...args: string[]): string {
  const env = childEnvironment()
  const { stdout, stderr } = spawnSync(...plainly(shell, args), {
    cwd,
    env: { ...env, PATH: `${bin}:${env['PATH']}` },
    encoding: 'utf8',
    timeout: 60_000,
  })
  return stdout + stderr
}

await t.test('bash completes with it', { skip: missing('bash') }, async t => {
  const complete = (line: string): string =>
    inShell(
      'bash',
      '--norc',
      '-c',
      `source <(koci completion bash); COMP_LINE=$1; COMP_POINT=\${#1}
       compopt() { :; }; _koci_complete; printf '%s\\n' "\${COMPREPLY[@]}"`,
      'bash',
      line,
    )
  t.equal(complete('koci raw ad'), 'add-layer\n')
  t.equal(complete('koci unpack --image images:webb'), 'webby\n')
  t.equal(complete('koci repack --compress=g'), 'gzip\n')
  t.equal(complete('koci unpack b'), '\n')
})

await t.test('fish completes with it', { skip: missing('fish') }, async t => {
  const complete = (line: string): string =>
    inShell('fish', '-N', '-c', `koci completion fish | source; complete -C '${line}'`)
  t.equal(complete('koci raw ad'), 'add-layer\n')
  t.match(complete('koci unpack --image images:webb'), 'images:webby\n')
})

await t.test('zsh reads it', { skip: missing('zsh') }, async t => {
  const script = `autoload -Uz compinit; compinit -u -d ${cwd}/dump; source <(koci completion zsh)
    print $_comps[koci]`
  t.equal(inShell('zsh', '-f', '-c', script), '_koci\n')
})
