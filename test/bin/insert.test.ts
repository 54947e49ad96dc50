import {
  chmodSync,
  linkSync,
  mkdirSync,
  readFileSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs'
import { createServer } from 'node:net'
import path from 'node:path'
import t from 'tap'
import { makeImage } from '../support/image.ts'
import { temporary } from '../support/peers.ts'
import { describeTree } from '../support/tree.ts'
import { koci } from './run-koci.ts'

const rootless = process.geteuid?.() === 0 ? [] : ['--rootless']
const silent = { code: 0, stdout: '', stderr: '' }

async function prepare(cwd: string): Promise<void> {
  await makeImage(path.join(cwd, 'images'), 'a', {
    layers: [
      [
        { name: 'etc/', type: 'directory' },
        { name: 'etc/old', body: 'old' },
      ],
    ],
    config: {},
  })
  mkdirSync(path.join(cwd, 'src/barred'), { recursive: true })
  mkdirSync(path.join(cwd, 'inside'))
  writeFileSync(path.join(cwd, 'src/file'), 'content')
  linkSync(path.join(cwd, 'src/file'), path.join(cwd, 'src/twin'))
  writeFileSync(path.join(cwd, 'src/barred/file'), 'x')
  writeFileSync(path.join(cwd, 'src/barred/a-b'), 'x')
  symlinkSync('..', path.join(cwd, 'src/up'))
  chmodSync(path.join(cwd, 'src/barred'), 0o511)
}

async function treeOf(cwd: string, tag: string): Promise<string[]> {
  const args = ['raw', 'unpack', ...rootless, '--image', `images:${tag}`, tag]
  t.same(await koci(args, { cwd }), silent)
  return describeTree(path.join(cwd, tag), { times: false, root: false, xattrs: false })
}

await t.test(
  'a tree is inserted with its links and modes, from any working directory',
  async t => {
    const cwd = temporary(t, 'insert')
    await prepare(cwd)
    const args = ['insert', '--tag', 'b', ...rootless, '--image', '../images:a']
    t.same(await koci([...args, '../src', '/etc'], { cwd: path.join(cwd, 'inside') }), silent)
    const tree = (await treeOf(cwd, 'b')).join('\n')
    t.match(tree, /^etc\/file file \d+ \S+ 7 \S+( =.*)?$/m)
    t.match(tree, /^etc\/twin .*=etc\/file/m)
    t.match(tree, /^etc\/barred dir 511 /m)
    t.match(tree, /^etc\/up link 777 \S+ -> \.\.$/m)
    t.match(tree, /^etc\/old file/m)
  },
)

await t.test('--opaque hides what was there, --whiteout removes it', async t => {
  const cwd = temporary(t, 'insert')
  await prepare(cwd)
  const insert = ['insert', '--image', 'images:a', '--tag']
  t.same(await koci([...insert, 'b', '--opaque', 'src/barred', 'etc'], { cwd }), silent)
  t.same(await koci([...insert, 'c', '--whiteout', '/etc/old'], { cwd }), silent)
  t.notMatch((await treeOf(cwd, 'b')).join('\n'), /etc\/old/)
  t.notMatch((await treeOf(cwd, 'c')).join('\n'), /etc\/old/)
})

await t.test('a socket is left out, with a warning', async t => {
  const cwd = temporary(t, 'insert')
  await prepare(cwd)
  const server = createServer()
  const socket = path.join(cwd, 'src/s')
  // the path of a socket is short
  const back = process.cwd()
  process.chdir(path.join(cwd, 'src'))
  await new Promise<void>(resolve => server.listen('s', resolve))
  process.chdir(back)
  t.teardown(() => server.close())
  const { code, stderr } = await koci(['insert', '--image', 'images:a', 'src', 'x'], { cwd })
  t.equal(code, 0)
  t.match(stderr, /^koci: warning: s: a socket can't be in a layer \[SOCKET_SKIPPED\]\n$/)
  server.close()
  try {
    unlinkSync(socket)
  } catch {
    // closing it removed it
  }
})

await t.test('the history says who, and nobody else', async t => {
  const cwd = temporary(t, 'insert')
  await prepare(cwd)
  const made = await koci(['insert', '--json', '--image', 'images:a', 'src', 'x'], { cwd })
  t.match(JSON.parse(made.stdout), { tag: 'a', layers: [{}, { digest: /^sha256:/ }] })
  const { stdout } = await koci(['stat', '--json', '--image', 'images:a'], { cwd })
  const last = JSON.parse(stdout).history.at(-1)
  t.match(last, { created_by: 'koci insert', layer: { digest: /^sha256:/ } })
  t.notOk('author' in last)
})

await t.test('a tar that is none is added with a warning; a pipe can be read', async t => {
  const cwd = temporary(t, 'insert')
  await prepare(cwd)
  writeFileSync(path.join(cwd, 'gz'), Buffer.from('1f8b0800', 'hex'))
  const args = ['raw', 'add-layer', '--image', 'images:a']
  const { code, stderr } = await koci([...args, 'gz'], { cwd })
  t.equal(code, 0)
  t.match(stderr, /^koci: warning: gz: not a tar archive - it looks like gzip \[NOT_A_TAR\]\n$/)
  t.match(await koci(['--strict', ...args, 'gz'], { cwd }), { code: 1, stderr: /STRICT/ })
  writeFileSync(path.join(cwd, 'empty.tar'), Buffer.alloc(1024))
  t.same(await koci([...args, '--compress', 'none', 'empty.tar'], { cwd }), silent)
  const { stdout } = await koci(['stat', '--json', '--image', 'images:a'], { cwd })
  const layer = JSON.parse(stdout).manifest.blob.layers.at(-1)
  t.match(layer, { mediaType: 'application/vnd.oci.image.layer.v1.tar', size: 1024 })
  const blob = path.join(cwd, 'images/blobs', layer.digest.replace(':', '/'))
  t.strictSame(readFileSync(blob), Buffer.alloc(1024))
})
