// Commands that look at images, and make others of them, without unpacking: as processes, on the same layout.
import path from 'node:path'
import t from 'tap'
import { makeImage } from '../support/image.ts'
import { dir, file } from '../support/members.ts'
import { temporary } from '../support/peers.ts'
import { koci } from './run-koci.ts'

const cwd = temporary(t, 'images')
const base = [dir('etc'), file('etc/motd', 'hello'), file('etc/old', 'gone')]
const odd = Buffer.from('a\nb\xff', 'latin1')
await makeImage(path.join(cwd, 'images'), 'a', { layers: [base] })
await makeImage(path.join(cwd, 'images'), 'b', {
  layers: [base, [file('etc/motd', 'hi'), file('etc/.wh.old'), file(odd, 'x')]],
})

await t.test('diff: lines, NUL-terminated bytes, JSON', async t => {
  const text = await koci(['diff', 'images:a', 'images:b'], { cwd })
  t.same(text, {
    code: 0,
    stdout: [
      'A           -           1 a\\nb\\xff\n',
      'M           5           2 etc/motd\n',
      'D           4           - etc/old\n',
    ].join(''),
    stderr: '',
  })
  const json = await koci(['diff', '--json', 'images:a', 'images:b'], { cwd })
  t.match(JSON.parse(json.stdout), [
    { kind: 'A', rawPath: odd.toString('base64'), oldSize: null, newSize: 1, differs: [] },
    { kind: 'M', path: 'etc/motd', oldSize: 5, newSize: 2, differs: ['size'] },
    { kind: 'D', path: 'etc/old', oldSize: 4, newSize: null, differs: [] },
  ])
  const raw = await koci(['diff', '-0', 'images:b', 'images:a'], { cwd })
  t.match(raw.stdout, /^D 1 - a\nb.\0M 2 5 etc\/motd\0A - 4 etc\/old\0$/s)
  t.same(await koci(['diff', 'images:a', 'images:a'], { cwd }), {
    code: 0,
    stdout: '',
    stderr: '',
  })
})

await t.test('flatten: the same tree in one layer, under a tag of its own', async t => {
  const made = await koci(['flatten', '--json', '--image', 'images:b', '--tag', 'flat'], {
    cwd,
  })
  t.match(JSON.parse(made.stdout), { tag: 'flat', layers: { length: 1 } })
  t.equal((await koci(['diff', 'images:b', 'images:flat'], { cwd })).stdout, '')
  t.same(await koci(['squash', '--image=images:flat', '--layers=0'], { cwd }), {
    code: 0,
    stdout: '',
    stderr: '',
  })
  const { stdout } = await koci(['stat', '--json', '--image=images:flat'], { cwd })
  t.match(JSON.parse(stdout).history.at(-1), {
    created_by: 'koci flatten',
    empty_layer: undefined,
  })
})

await t.test('copy: in silence, or as JSON; what it would do', async t => {
  const silent = { code: 0, stdout: '', stderr: '' }
  t.same(await koci(['cp', 'images:b', 'copy'], { cwd }), silent)
  t.same(await koci(['copy', 'images:a', 'copy.tar:v1'], { cwd }), silent)
  t.equal((await koci(['ls', '--layout=copy'], { cwd })).stdout, 'b\n', 'the tag of the source')
  t.equal((await koci(['ls', '--layout=copy.tar'], { cwd })).stdout, 'v1\n')
  t.same(await koci(['copy', '--all', 'copy.tar', 'copy'], { cwd }), silent)
  t.equal((await koci(['diff', 'images:a', 'copy:v1'], { cwd })).stdout, '')
  const { stdout } = await koci(['copy', '--json', 'images:a', 'copy'], { cwd })
  t.match(JSON.parse(stdout), {
    target: 'copy',
    entries: [{ annotations: { 'org.opencontainers.image.ref.name': 'a' } }],
    blobs: [{ how: 'present' }, { how: 'present' }, { how: 'present' }],
  })
  const dry = await koci(['copy', '--dry-run', 'images:b', 'new'], { cwd })
  t.match(dry.stdout, /^(would copy: sha256:[0-9a-f]{64} \(\d+(\.\d)? k?B\)\n){4}$/)
  t.match((await koci(['ls', '--layout=new'], { cwd })).code, 1)
})

await t.test('mistakes', async t => {
  for (const [args, message] of [
    [['diff', 'images:a'], /expected <layout\[:tag\]> <layout\[:tag\]>, found images:a/],
    [['diff', 'images:a', 'images:nope'], /tag nope: tag not found in images - it has a, b/],
    [
      ['diff', '--json', '-0', 'images:a', 'images:b'],
      /--null: can not go together with --json/,
    ],
    [['diff', 'images:a', ':b'], /the path is empty/],
    [['copy', 'images:a', 'images.tar', 'more'], /expected <layout\[:tag\]> <target\[:tag\]>/],
    [['copy', '--all', 'images:a', 'other'], /images:a: --all copies every tag - name none/],
    [['copy', '--all', '--platform=linux/arm64', 'images', 'b'], /--platform: can not go tog/],
    [['copy', '--format=zip', 'images:a', 'b'], /zip is not one of layout, archive/],
    [['flatten', '--image=images:b', '--layers=1-2'], /1-2 is not a range of layers such as/],
    [['flatten', '--image=images:b', '--layers=..'], /\.\. is not a range of layers/],
    [['flatten', '--image=images:b', '--layers=2..1'], /2\.\.1 ends before it begins/],
    [['flatten', '--image=images:b', '--layers=0..7'], /the image has layers 0 to 1, base/],
  ] as const) {
    const { code, stdout, stderr } = await koci(args, { cwd })
    t.equal(code, 1, args.join(' '))
    t.equal(stdout, '')
    t.match(stderr, message)
  }
})
