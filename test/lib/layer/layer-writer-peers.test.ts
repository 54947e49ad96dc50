// What koci writes, read by others: Go, GNU tar, bsdtar, Python.
import { spawnSync } from 'node:child_process'
import t from 'tap'
import type { LayerEntry } from '../../../lib/layer/layer-writer.ts'
import { buildGoTar, goMissing } from '../../support/go-tar.ts'
import { entryOf, layerOf } from '../../support/layer-entries.ts'

const second = 1_000_000_000n
const latin1 = (text: string): Buffer => Buffer.from(text, 'latin1')

const entries: LayerEntry[] = [
  entryOf({ type: 'directory', path: '', mtime: second }),
  entryOf({ type: 'directory', path: 'dir', mode: 0o1777 }),
  entryOf({ type: 'file', path: 'dir/plain', content: 'plain', uid: 1000, gid: 100 }),
  entryOf({ type: 'file', path: 'dir/ids', content: 'i', uid: 3_000_000, gid: 2 ** 32 - 2 }),
  entryOf({ type: 'file', path: 'dir/none', mode: 0, mtime: 1_700_000_000n * second + 123n }),
  entryOf({ type: 'file', path: 'dir/old', mode: 0o4711, mtime: -1_500_000_000n }),
  entryOf({ type: 'file', path: 'dir/late', mtime: 2n ** 33n * second }),
  entryOf({ type: 'file', path: 'dir/é=', content: 'é' }),
  entryOf({ type: 'file', path: latin1('dir/\xff\xfe'), content: 'bytes' }),
  entryOf({ type: 'file', path: `dir/${'n'.repeat(200)}`, content: 'long' }),
  entryOf({ type: 'directory', path: `${'d/'.repeat(120)}d` }),
  entryOf({ type: 'symlink', path: 'link', rawLinkname: latin1(`../${'t'.repeat(120)}\xe9`) }),
  entryOf({ type: 'hardlink', path: 'hard', rawLinkname: Buffer.from('dir/plain') }),
  entryOf({ type: 'fifo', path: 'fifo' }),
  entryOf({ type: 'char', path: 'null', devmajor: 1, devminor: 3 }),
  entryOf({ type: 'block', path: 'block', devmajor: 4095, devminor: 262_143 }),
  entryOf({
    type: 'file',
    path: 'dir/xattrs',
    content: 'x',
    xattrs: [[Buffer.from('user.x'), Buffer.from([0, 0xff, 0x0a, 0x3d])]],
  }),
  entryOf({ type: 'whiteout', path: 'dir/gone' }),
]

const types = {
  file: '0',
  hardlink: '1',
  symlink: '2',
  char: '3',
  block: '4',
  directory: '5',
  fifo: '6',
}

function nameOf({ rawPath, type }: LayerEntry): string {
  const path = rawPath.toString('latin1')
  if (type === 'directory') return `${path === '' ? '.' : path}/`
  return type === 'whiteout' ? 'dir/.wh.gone' : path
}

function missing(command: string): string | false {
  return spawnSync(command, ['--version'], { timeout: 20_000 }).status === 0
    ? false
    : `needs ${command}`
}

await t.test("Go's archive/tar reads every field", { skip: goMissing() }, async t => {
  const [result] = buildGoTar(t.testdir())([await layerOf(entries)])
  t.equal(result?.error, undefined)
  const expected = entries.map(entry => {
    const gone = entry.type === 'whiteout'
    const name = Buffer.from(nameOf(entry), 'latin1').toString('base64')
    const isLink = entry.type === 'symlink' || entry.type === 'hardlink'
    return {
      name,
      type: gone ? '0' : types[entry.type as keyof typeof types],
      size: entry.type === 'file' ? entry.size : 0,
      linkname: isLink ? (entry.rawLinkname?.toString('base64') ?? '') : '',
      mode: gone ? 0 : entry.mode,
      uid: entry.uid,
      gid: entry.gid,
      mtime: String(entry.mtime),
      devmajor: entry.devmajor ?? 0,
      devminor: entry.devminor ?? 0,
      xattrs: Object.fromEntries(
        (entry.xattrs ?? []).map(([key, value]) => [
          key.toString('base64'),
          value.toString('base64'),
        ]),
      ),
    }
  })
  t.match(result?.members, expected)
  t.equal(result?.members.length, entries.length)
})

await t.test('GNU tar lists it', { skip: missing('tar') }, async t => {
  const run = spawnSync('tar', ['--quoting-style=literal', '--numeric-owner', '-tvf', '-'], {
    input: await layerOf(entries),
    env: { ...process.env, LC_ALL: 'C', TZ: 'UTC' },
    timeout: 20_000,
  })
  t.equal(run.status, 0, String(run.stderr))
  const lines = run.stdout.toString('latin1').trimEnd().split('\n')
  t.equal(lines.length, entries.length)
  for (const [index, entry] of entries.entries()) {
    const line = lines[index] ?? ''
    t.ok(line.includes(` ${nameOf(entry)}`), line)
    t.ok(line.includes(` ${entry.uid}/${entry.gid} `), line)
  }
})

await t.test('bsdtar lists it', { skip: missing('bsdtar') }, async t => {
  const run = spawnSync('bsdtar', ['-tvnf', '-'], {
    input: await layerOf(entries),
    env: { ...process.env, LC_ALL: 'C.UTF-8', TZ: 'UTC' },
    timeout: 20_000,
  })
  t.equal(run.status, 0, String(run.stderr))
  const lines = run.stdout.toString().trimEnd().split('\n')
  t.equal(lines.length, entries.length)
  for (const [index, entry] of entries.entries())
    t.match(lines[index], new RegExp(` ${entry.uid} +${entry.gid} `))
})

await t.test('Python reads it', { skip: missing('python3') }, async t => {
  const script = `
import json, sys, tarfile
archive = tarfile.open(fileobj=sys.stdin.buffer, mode='r|', errors='surrogateescape')
print(json.dumps([[m.name.encode('utf-8', 'surrogateescape').hex(), m.type.decode(), m.size, m.mode, m.uid, m.gid] for m in archive]))
`
  const input = await layerOf(entries)
  const run = spawnSync('python3', ['-c', script], { input, timeout: 20_000 })
  t.equal(run.status, 0, String(run.stderr))
  t.same(
    JSON.parse(String(run.stdout)),
    entries.map(entry => [
      latin1(nameOf(entry).replace(/(.)\/$/, '$1')).toString('hex'),
      entry.type === 'whiteout' ? '0' : types[entry.type as keyof typeof types],
      entry.type === 'file' ? entry.size : 0,
      entry.type === 'whiteout' ? 0 : entry.mode,
      entry.uid,
      entry.gid,
    ]),
  )
})
