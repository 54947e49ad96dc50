import { spawnSync } from 'node:child_process'
import { closeSync, existsSync, mkdirSync, openSync, readdirSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import t from 'tap'
import { makeImage } from '../support/image.ts'
import { childEnvironment, koci, plainly, program, several } from './run-koci.ts'

const invalid = 'ERR_KOCI_INVALID_OPTION'
const badRef = 'ERR_KOCI_INVALID_REFERENCE'

/** Arguments, the exit code, and what standard error holds. Standard output stays empty. */
const cases: [args: string, exit: number, message: string | RegExp, code?: string][] = [
  // commands
  ['foo', 3, 'koci: foo: no such command - koci help lists the commands', invalid],
  ['unpak', 3, 'unpak: no such command - did you mean unpack?', invalid],
  ['UNPACK', 3, 'UNPACK: no such command - did you mean unpack?', invalid],
  ['Unpack --image images:a b', 3, 'Unpack: no such command - did you mean unpack?', invalid],
  ['help foo', 3, "no help topic for 'foo'", invalid],
  ['raw nosuch', 3, 'nosuch: no such command - koci raw help lists the commands', invalid],
  ['raw runtime-confg', 3, 'did you mean runtime-config?', invalid],
  ['raw help nosuch', 3, "no help topic for 'nosuch'", invalid],
  ['help raw nosuch', 3, "no help topic for 'nosuch'", invalid],
  ['raw -x config', 1, '-x: koci raw has no such option', invalid],
  ['constructor', 3, 'constructor: no such command', invalid],
  // options in general
  [
    '--image images:a unpack b',
    1,
    '--image: koci has no such option - options of a command',
    invalid,
  ],
  ['-x', 1, 'koci: -x: koci has no such option', invalid],
  [
    'unpack --imag images:a b',
    1,
    'koci unpack has no such option - did you mean --image?',
    invalid,
  ],
  [
    'unpack --image images:a --rootles b',
    1,
    '--rootles: koci unpack has no such option - did you mean --rootless?',
    invalid,
  ],
  [
    'unpack --image images:a --frobnicate b',
    1,
    '--frobnicate: koci unpack has no such option - see koci unpack --help',
    invalid,
  ],
  [
    'unpack --image images:a --no-rootless b',
    1,
    '--no-rootless: koci unpack has no such option',
    invalid,
  ],
  [
    'unpack --image images:a --__proto__=x b',
    1,
    '--__proto__: koci unpack has no such option',
    invalid,
  ],
  [
    'unpack --image images:a --image images:b b',
    1,
    '--image: given twice - it takes one value',
    invalid,
  ],
  [
    'repack --image images:a --compress gzip --compress zstd b',
    1,
    '--compress: given twice',
    invalid,
  ],
  ['unpack b --image', 1, '--image: needs a value - give --image=layout[:tag]', invalid],
  [
    'unpack --image images:a --rootless=maybe b',
    1,
    '--rootless: maybe is neither true nor false',
    invalid,
  ],
  ['ls --layout images --version', 1, '--version: koci list has no such option', invalid],
  [
    'ls --layout images --log loud',
    1,
    '--log: loud is not one of debug, info, warn, error, fatal',
    invalid,
  ],
  ['ls --layout images --log', 1, '--log: needs a value', invalid],
  [
    '--verbose ls --layout images --log=info',
    1,
    '--verbose: means --log=info - give one of the two',
    invalid,
  ],
  ['--verbose=no ls --layout images', 1, '--verbose: no is neither true nor false', invalid],
  // required options and positionals, before any I/O
  ['unpack b', 1, '--image: missing - give --image=layout[:tag]', invalid],
  ['unpack --image= b', 1, '--image: is empty', invalid],
  [
    'unpack --image nowhere:a',
    1,
    'unpack: invalid number of arguments: expected <bundle>, found nothing',
    invalid,
  ],
  ['unpack --image nowhere:a b c', 1, 'expected <bundle>, found b c', invalid],
  [
    'repack --image nowhere:a',
    1,
    'repack: invalid number of arguments: expected <bundle>',
    invalid,
  ],
  ['tag --image nowhere:a', 1, 'expected <new-tag>, found nothing', invalid],
  ['tag --image nowhere:a b c', 1, 'expected <new-tag>, found b c', invalid],
  ['init', 1, '--layout: missing', invalid],
  [
    'init --layout images extra',
    1,
    'init: invalid number of arguments: expected no arguments, found extra',
    invalid,
  ],
  ['new', 1, '--image: missing', invalid],
  ['ls', 1, '--layout: missing', invalid],
  ['list images', 1, '--layout: missing', invalid],
  ['rm', 1, '--image: missing', invalid],
  ['stat', 1, '--image: missing', invalid],
  // forms of values, before any I/O
  ['unpack --image :tag b', 1, 'invalid reference: the path is empty', badRef],
  ['unpack --image nowhere: b', 1, 'invalid reference: the tag is empty', badRef],
  ['unpack --image nowhere:.AZ94n18s b', 1, 'the tag contains invalid characters', badRef],
  [
    'tag --image images:a .AZ94n18s',
    1,
    '.AZ94n18s: invalid reference: the tag contains invalid characters',
    badRef,
  ],
  ['init --layout a:b', 1, "--layout: path contains ':' character: a:b", invalid],
  ['ls --layout a:b', 1, "--layout: path contains ':' character: a:b", invalid],
  ['ls --layout=', 1, '--layout: is empty', invalid],
  [
    'unpack --image nowhere:a --platform linux b',
    1,
    'expected os/architecture[/variant]',
    invalid,
  ],
  [
    'unpack --image nowhere:a --uid-map 0 b',
    1,
    'id map 0: expected container:host[:size]',
    invalid,
  ],
  ['unpack --image nowhere:a --gid-map 0:1:0 b', 1, 'id map 0:1:0: the size is 0', invalid],
  ['unpack --image nowhere:a --uid-map 0:1,1:2 b', 1, 'id map 0:1,1:2: expected', invalid],
  [
    'repack --image nowhere:a --compress xz b',
    1,
    '--compress: xz is not one of auto, none, gzip, zstd',
    invalid,
  ],
  [
    'repack --image nowhere:a --no-history --history.author=me b',
    1,
    '--no-history: can not go together',
    invalid,
  ],
  [
    'repack --image nowhere:a --history.created yesterday b',
    1,
    '--history.created: yesterday is not an RFC 3339 time',
    invalid,
  ],
  [
    'repack --image nowhere:a --history.created 2026-02-30T00:00:00Z b',
    1,
    'is not an RFC 3339 time',
    invalid,
  ],
  ['repack --image nowhere:a --history.created= b', 1, 'is not an RFC 3339 time', invalid],
  [
    'repack --image images:a --rootless b',
    1,
    '--rootless: koci repack has no such option',
    invalid,
  ],
  ['repack --image images:a --tag b b', 1, '--tag: koci repack has no such option', invalid],
  // things that aren't there, or are in the way
  [
    'unpack --image nowhere:a b',
    1,
    /nowhere: not an OCI image layout: no such file/,
    'ERR_KOCI_INVALID_LAYOUT',
  ],
  [
    'unpack --image images:zz b',
    1,
    'tag zz: tag not found in images - it has a',
    'ERR_KOCI_REF_NOT_FOUND',
  ],
  ['unpack --image images b', 1, 'tag latest: tag not found', 'ERR_KOCI_REF_NOT_FOUND'],
  ['unpack --image file b', 1, /file/, 'ERR_KOCI_'],
  ['unpack --image images:a file', 1, 'file: not a usable bundle', 'ERR_KOCI_INVALID_BUNDLE'],
  [
    'unpack --image images:a --platform linux/s390x b',
    1,
    's390x',
    'ERR_KOCI_PLATFORM_NOT_FOUND',
  ],
  [
    'repack --image images:b nowhere',
    1,
    /nowhere: not a usable bundle: no such directory/,
    'ERR_KOCI_INVALID_BUNDLE',
  ],
  [
    'repack --image images:b images',
    1,
    'images: not a usable bundle',
    'ERR_KOCI_INVALID_BUNDLE',
  ],
  ['init --layout images', 1, 'images: already exists', 'ERR_KOCI_CLOBBER'],
  ['new --image nowhere:a', 1, 'nowhere: not an OCI image layout', 'ERR_KOCI_INVALID_LAYOUT'],
  ['tag --image images:zz b', 1, 'tag zz: tag not found', 'ERR_KOCI_REF_NOT_FOUND'],
  ['rm --image nowhere:a', 1, 'nowhere: not an OCI image layout', 'ERR_KOCI_INVALID_LAYOUT'],
  ['stat --image images:zz', 1, 'tag zz: tag not found', 'ERR_KOCI_REF_NOT_FOUND'],
  ['ls --layout nowhere', 1, 'nowhere: not an OCI image layout', 'ERR_KOCI_INVALID_LAYOUT'],
]

await t.test(
  'mistakes have one line on standard error, a code, and an exit status',
  async t => {
    const cwd = t.testdir()
    await makeImage(path.join(cwd, 'images'), 'a', { layers: [] })
    writeFileSync(path.join(cwd, 'file'), 'not a layout')
    const before = readdirSync(cwd)

    await several(cases, async ([line, exit, message, code = '']) => {
      const { code: status, stdout, stderr } = await koci(line.split(' '), { cwd })
      await t.test(`koci ${line}`, async t => {
        t.equal(status, exit, 'exit status')
        t.equal(stdout, '', 'nothing on standard output')
        t.match(stderr, message)
        t.match(stderr, code)
        t.match(stderr, /^koci: [^\n]*\[ERR_KOCI_\w+\]\n$/, 'one line with its code at the end')
      })
    })
    t.same(readdirSync(cwd), before, 'nothing was made')
  },
)

await t.test('with --json an error is the JSON of the error', async t => {
  const cwd = t.testdir()
  for (const args of ['unpack --json --image nowhere:a b', 'ls --json', 'foo --json']) {
    const { stdout, stderr } = await koci(args.split(' '), { cwd })
    t.equal(stdout, '')
    const error = JSON.parse(stderr)
    t.match(error, { code: /^ERR_KOCI_/, name: /Error$/, message: String, details: Object })
  }
})

await t.test('a working directory that has been removed', async t => {
  const gone = path.join(t.testdir(), 'gone')
  mkdirSync(gone)
  const script = `rmdir "$PWD" && exec ${process.execPath} ${program} "$@"`
  for (const [line, exit, text] of [
    ['unpack --image images:a b', 1, /^koci: working directory: it is gone - .*INVALID_OPTION/],
    ['gc --layout images', 1, /^koci: working directory: it is gone - .*INVALID_OPTION/],
    ['unpack --help', 0, /^$/],
  ] as const) {
    mkdirSync(gone, { recursive: true })
    const [command, args] = plainly('sh', ['-c', script, 'sh', ...line.split(' ')])
    const { status, stderr } = spawnSync(command, args, {
      cwd: gone,
      timeout: 60_000,
      encoding: 'utf8',
      env: childEnvironment(),
    })
    t.equal(status, exit, line)
    t.match(stderr, text)
    t.ok(stderr.split('\n').length <= 2, stderr)
  }
})

await t.test(
  'what can not be printed is an error, and is told',
  { skip: !existsSync('/dev/full') && 'needs /dev/full' },
  async t => {
    const tell = (...words: string[]): string => {
      const [command, args] = plainly(process.execPath, [program, 'drivers', ...words])
      const full = openSync('/dev/full', 'w')
      const { status, stderr } = spawnSync(command, args, {
        stdio: ['ignore', full, 'pipe'],
        encoding: 'utf8',
        timeout: 60_000,
        env: childEnvironment(),
      })
      closeSync(full)
      t.equal(status, 1)
      return stderr
    }
    t.match(tell(), /^koci: standard output: ENOSPC.* \[ERR_KOCI_IO\]\n$/)
    t.match(JSON.parse(tell('--json')), { code: 'ERR_KOCI_IO', message: /^standard output: / })
  },
)

await t.test('control characters of names are never sent to the terminal', async t => {
  const cwd = t.testdir()
  const evil = 'no\u001b[2Jwhere'
  for (const args of [
    ['ls', '--layout', evil],
    ['unpack', '--image', `${evil}:a`, 'b'],
    [evil],
    [`--${evil}`],
    ['ls', '--layout', 'x', '--log', 'debug', evil],
    ['repack', '--log', 'debug', '--image', 'x:a', evil],
  ]) {
    const { code, stderr } = await koci(args, { cwd })
    t.not(code, 0)
    t.notMatch(stderr, '\u001b', 'no escape')
    t.match(stderr, String.raw`no\x1b[2Jwhere`)
  }
})

await t.test('--verbose tells causes, --log=debug stacks, too', async t => {
  const cwd = t.testdir()
  const plain = await koci(['ls', '--layout', 'nowhere'], { cwd })
  t.notMatch(plain.stderr, 'caused by')
  const verbose = await koci(['ls', '--layout', 'nowhere', '--verbose'], { cwd })
  t.match(verbose.stderr, /\n {2}caused by: ENOENT: no such file/)
  t.notMatch(verbose.stderr, / at .*\.ts:/)
  const debug = await koci(['--log', 'DEBUG', 'ls', '--layout', 'nowhere'], { cwd })
  t.match(debug.stderr, /\n {2}caused by: ENOENT/)
  t.match(debug.stderr, /at .*image-layout\.ts:/)
  t.notOk(existsSync(path.join(cwd, 'nowhere')))
})
