import {
  chmodSync,
  lutimesSync,
  mkdirSync,
  readdirSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import path from 'node:path'
import t from 'tap'
import { isRoot, temporary, umociMissing } from '../support/peers.ts'
import { makeImage } from '../support/image.ts'
import { peerImage } from '../support/peer-image.ts'
import { koci, several } from './run-koci.ts'
import { umoci } from './umoci.ts'

const rootless = isRoot ? [] : ['--rootless']
const silent = { code: 0, stdout: '', stderr: '' }

await t.test(
  'what umoci and koci record of a bundle holds, and every change is found',
  { skip: umociMissing(!isRoot) },
  async t => {
    const cwd = temporary(t, 'validate')
    await makeImage(path.join(cwd, 'images'), 'a', peerImage)
    await several([umoci, koci], async program => {
      const bundle = path.join(cwd, program.name)
      const args = ['unpack', ...rootless, '--image', 'images:a', bundle]
      const { code, stderr } = await program(args, { cwd })
      t.equal(code, 0, stderr)
      const file = readdirSync(bundle).find(name => name.endsWith('.mtree')) ?? ''
      const manifest = path.join(bundle, file)
      const tree = path.join(bundle, 'rootfs')
      const validate = (...more: string[]) =>
        koci(['raw', 'mtree-validate', '-f', manifest, '-p', tree, ...more])
      t.same(await validate(), silent, `${program.name}: as unpacked`)
      t.same(await validate('--umoci-keywords'), silent)
      t.same(await validate('-k', 'type,size', '-K', 'sha256'), silent)

      writeFileSync(path.join(tree, 'etc/empty'), 'x')
      chmodSync(path.join(tree, 'tmp'), 0o700)
      rmSync(path.join(tree, 'é'))
      writeFileSync(path.join(tree, 'new\n"one"'), '')
      const { code: after, stdout, stderr: why } = await validate('-k', 'type,size,mode,sha256')
      t.equal(after, 1)
      t.match(stdout, /^"etc\/empty": keyword "size": expected 0; got 1$/m)
      t.match(stdout, /^"tmp": keyword "mode": expected 01777; got 0700$/m)
      t.match(stdout, /^"é": missing path$/m)
      t.match(stdout, /^"new\\n\\"one\\"": unexpected path$/m)
      t.match(why, /: validation failed: \d+ differences found \[ERR_KOCI_TREE_DIFFERS\]\n$/)
      const json = await validate('--json', '-k', 'mode')
      t.match(JSON.parse(json.stdout), [
        { path: 'new\n"one"', kind: 'extra' },
        { path: 'tmp', kind: 'modified', keywords: [{ name: 'mode', expected: '01777' }] },
        { path: 'é', kind: 'missing' },
      ])
    })
  },
)

const sums: Readonly<Record<string, string>> = {
  md5: '9a0364b9e99bb480dd25e1f0284c8555',
  sha1: '040f06fd774092478d450774f5ba30c5da78acc8',
  sha256: 'ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73',
}

function makeTree(cwd: string): void {
  mkdirSync(path.join(cwd, 'tree/dir'), { recursive: true })
  writeFileSync(path.join(cwd, 'tree/dir/a b'), 'content')
  chmodSync(path.join(cwd, 'tree/dir/a b'), 0o640)
  symlinkSync('a b', path.join(cwd, 'tree/link'))
  utimesSync(path.join(cwd, 'tree/dir/a b'), 5, 5.25)
  lutimesSync(path.join(cwd, 'tree/link'), 5, 5)
  utimesSync(path.join(cwd, 'tree/dir'), 5, 5)
  utimesSync(path.join(cwd, 'tree'), 5, 5)
}

/** A manifest of the tree, or of something like it; keywords to use; the lines that are printed. */
const cases: [name: string, manifest: string, flags: string[], lines: string[]][] = [
  [
    'nested, with defaults and synonyms',
    `#mtree\n/set type=file mode=0640\n. type=dir mode=0755\n    link type=link mode=0777 link=a\\040b\ndir type=dir mode=0755\n    a\\040b sha256=${sums['sha256']} \\\n md5=${sums['md5']}\n..\n..\n`,
    [],
    [],
  ],
  [
    'whole paths',
    `./dir/a\\sb type=file sha1digest=${sums['sha1']?.toUpperCase()}\n./dir type=dir\n. type=dir\n./link type=link link=a\\sb\n`,
    [],
    [],
  ],
  [
    'another content, an optional path, one that is not there',
    '. type=dir\nlink type=link link=b\ngone type=file optional\ndir type=dir\na\\040b type=file sha1=8\nb type=file\n..\n..\n',
    [],
    [
      `"dir/a b": keyword "sha1digest": expected 8; got ${sums['sha1']}`,
      '"dir/b": missing path',
      '"link": keyword "link": expected b; got a\\040b',
    ],
  ],
  [
    'another type',
    '. type=dir\nlink type=file\ndir type=dir\na\\040b type=file\n',
    [],
    ['"link": keyword "type": expected file; got link'],
  ],
  [
    'a keyword that the manifest lacks',
    '. type=dir\nlink type=link\ndir type=dir\na\\040b type=file\n',
    ['-K', 'sha1'],
    [`"dir/a b": keyword "sha1digest": expected ; got ${sums['sha1']}`],
  ],
  [
    'only some keywords',
    '. type=dir mode=0\nlink type=link mode=0\ndir type=dir uid=12345\na\\040b type=file size=99\n',
    ['-k', 'type nlink', '-k', 'xattrs', '-k', 'type'],
    [
      '".": keyword "nlink": expected ; got 3',
      '"dir": keyword "nlink": expected ; got 2',
      '"dir/a b": keyword "nlink": expected ; got 1',
      '"link": keyword "nlink": expected ; got 1',
    ],
  ],
  [
    'times, whole or not',
    '/set time=5.0\n. type=dir\nlink type=link\ndir type=dir\na\\040b type=file time=5.250000000\n',
    ['-K', 'tar_time'],
    [],
  ],
  [
    'a time to the nanosecond',
    '/set time=5.000000000\n. type=dir\nlink type=link\ndir type=dir\na\\040b type=file\n',
    [],
    ['"dir/a b": keyword "time": expected 5.000000000; got 5.250000000'],
  ],
]

for (const [name, manifest, flags, lines] of cases)
  await t.test(`a manifest: ${name}`, async t => {
    const cwd = t.testdir()
    makeTree(cwd)
    writeFileSync(path.join(cwd, 'tree.mtree'), manifest)
    const args = ['raw', 'mtree-validate', '--manifest', 'tree.mtree', '--path=tree', ...flags]
    const { code, stdout, stderr } = await koci(args, { cwd })
    t.equal(stdout, lines.map(line => `${line}\n`).join(''))
    t.equal(code, lines.length > 0 ? 1 : 0, stderr)
  })

await t.test('mistakes', async t => {
  const cwd = t.testdir()
  makeTree(cwd)
  writeFileSync(path.join(cwd, 'good'), '. type=dir flags=none\n')
  writeFileSync(path.join(cwd, 'bad'), '. type=dir\n../x type=file\n')
  writeFileSync(path.join(cwd, 'empty'), '# nothing\n')
  const run = (...args: string[]) => koci(['raw', 'mtree-validate', ...args], { cwd })
  const failures: [args: string[], message: RegExp][] = [
    [['-f', 'good'], /--path: missing/],
    [['-p', 'tree'], /--file: missing/],
    [['-f', 'nowhere', '-p', 'tree'], /nowhere: ENOENT/],
    [['-f', 'good', '-p', 'nowhere'], /nowhere: .*ENOENT/],
    [['-f', 'bad', '-p', 'tree'], /bad: invalid mtree manifest at line 2/],
    [['-f', 'empty', '-p', 'tree'], /empty: invalid mtree manifest .*no entries/],
    [['-f', 'good', '-p', 'tree', '-k', 'colour'], /keyword colour: it can not be checked/],
    [['-f', 'good', '-p', 'tree', 'extra'], /expected no arguments/],
    [['-f', 'good', '-p', 'tree'], /KEYWORD_IGNORED/], // and then it differs
  ]
  await several(failures, async ([args, message]) => {
    const { code, stderr } = await run(...args)
    t.equal(code, 1, args.join(' '))
    t.match(stderr, message)
  })
})
