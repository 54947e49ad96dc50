// koci.config.ts: where one counts, what is wrong with one, and how it goes together with --use and what bundles remember.
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import path from 'node:path'
import t, { type Test } from 'tap'
import { runConfig } from '../../bin/chain/config-file.ts'
import { hookPlace, hookTable } from '../support/hooks.ts'
import { makeImage } from '../support/image.ts'
import { koci, type Outcome } from './run-koci.ts'

const rootless = process.geteuid?.() === 0 ? [] : ['--rootless']

/** A directory for a config file, trusted, and an image beside it. */
async function setUp(t: Test) {
  const { base, script, file: hooksFile } = hookPlace(t)
  const write = (name: string, text: string | Buffer, mode = 0o644): string => {
    const file = path.join(base, name)
    mkdirSync(path.dirname(file), { recursive: true, mode: 0o755 })
    writeFileSync(file, text)
    chmodSync(file, mode)
    return file
  }
  const run = (...args: string[]): Promise<Outcome> =>
    koci(args, { cwd: base, env: { XDG_CONFIG_HOME: `${base}/xdg` } })
  return { base, write, run, script, hooksFile }
}

async function withImage(t: Test) {
  const place = await setUp(t)
  await makeImage(path.join(place.base, 'images'), 'a', {
    layers: [[{ name: 'x', body: 'x' }]],
  })
  const unpack = (...args: string[]): Promise<Outcome> =>
    place.run('unpack', '--image', 'images:a', ...rootless, ...args)
  return { ...place, unpack }
}

/** One that leaves out logs, and keeps layers in a store beside it; it needs types, `koci`, and a file of its own. */
const config = (base: string): string => `
import { cache, type Koci } from 'koci'
import { withoutLogs } from './without-logs.ts'

export default async (app: Koci): Promise<Koci> => {
  app.on('unpack:done', ({ data }) => console.log('told of', data.bundle))
  return app.use(withoutLogs).use(cache({ dir: '${base}/store' }))
}
`
const sibling = `
import { filter } from 'koci'
import type { Driver } from 'koci'
export const withoutLogs: Driver = {
  name: 'without-logs',
  delta: async (ctx, next) => {
    await next()
    ctx.changes = filter(ctx.changes, ({ path }) => !path.endsWith('.log'))
  },
}
`

await t.test(
  "the user's file composes the chain; a bundle made with it is served by it",
  async t => {
    const { base, write, run, unpack, hooksFile, script } = await withImage(t)
    const file = write('xdg/koci/koci.config.ts', config(base))
    write('xdg/koci/without-logs.ts', sibling)
    const hooks = hooksFile(hookTable('unpack.ociv1.layer.pre-extract', script('hook', 'true')))
    t.same(await unpack('bundle'), { code: 0, stderr: '', stdout: `told of ${base}/bundle\n` })
    t.ok(existsSync(`${base}/store`))

    const about = await run('explain', '--image', 'images:a', ...rootless, '--hooks', hooks)
    t.match(about.stdout, `\nconfig      ${file}\n`)
    t.match(about.stdout, `\n--hooks     ${hooks}\n`)
    t.match(
      about.stdout,
      /limits +\(default\)[^]*hooks +\(--hooks\)[^]*without-logs +\(config\)[^]*cache +\(config\)[^]*mtree +\(default\)/,
    )
    const { chain } = JSON.parse((await run('explain', '--bundle', 'bundle', '--json')).stdout)
    t.match(chain, [
      { name: 'limits', from: 'default', file: null },
      { name: 'without-logs', from: 'config', file },
      { name: 'cache', from: 'config', file },
      { name: 'mtree', from: 'default' },
    ])

    writeFileSync(`${base}/bundle/rootfs/x.log`, '')
    writeFileSync(`${base}/bundle/rootfs/y`, '')
    const listed = await run('delta', 'bundle')
    t.same(listed, { code: 0, stderr: '', stdout: 'M .\nA y\n' })
    for (const flags of [['--no-config'], ['--use', 'mtree']]) {
      const { stdout, stderr } = await run('delta', ...flags, 'bundle')
      t.equal(stdout, 'M .\nA x.log\nA y\n', flags.join(' '))
      t.match(stderr, /made with without-logs, which it can't bring back/)
    }

    // what else is in it now doesn't matter, but it has to have all that the bundle was made with
    write('xdg/koci/koci.config.ts', config(`${base}/another`))
    const other = await run('delta', 'bundle')
    t.match(other.stderr, /made with without-logs.*limits, cache, mtree/)
    const named = await run('delta', '--config', file, 'bundle')
    t.same(named, { code: 0, stderr: '', stdout: 'M .\nA y\n' })
  },
)

await t.test(
  'what a bundle remembers counts more than the file, and --use more than both',
  async t => {
    const { write, run, unpack } = await withImage(t)
    await unpack('plain')
    const file = write(
      'xdg/koci/koci.config.js',
      'export default app => app.use(function own() {})',
    )
    const from = async (...args: string[]): Promise<string[]> => {
      const { stdout, stderr } = await run('explain', '--json', ...args)
      t.equal(stderr, '')
      return JSON.parse(stdout).chain.map(
        ({ name, from }: { name: string; from: string }) => `${name} ${from}`,
      )
    }
    const image = ['--image', 'images:a', ...rootless]
    const plain = ['limits default', 'mtree default']
    t.same(await from('--bundle', 'plain'), ['limits bundle', 'mtree bundle'])
    t.same(await from(...image), ['limits default', 'own config', 'mtree default'])
    t.same(await from(...image, '--config', file), [
      'limits default',
      'own --config',
      'mtree default',
    ])
    t.same(await from(...image, '--use', 'mtree'), ['limits default', 'mtree --use'])
    t.same(await from(...image, '--no-config'), plain)
    const elsewhere = write('koci.config.ts', 'export default app => app.use(function x() {})')
    t.ok(existsSync(elsewhere))
    t.same(
      await from(...image),
      ['limits default', 'own config', 'mtree default'],
      'never one from the working directory',
    )
  },
)

await t.test('mistakes on the command line', async t => {
  const { run, write } = await withImage(t)
  write('c.ts', 'export default () => {}')
  const chosen = "import { hooks } from 'koci'\nexport default app => app.use(hooks())"
  write('hooks.config.ts', chosen)
  const cases: [words: string[], message: RegExp][] = [
    [['--config', 'c.ts', '--no-config'], /--no-config: can not go together with --config/],
    [['--config', 'c.ts', '--use', 'mtree'], /--config: can not go together with --use/],
    [['--config', ''], /--config: is empty/],
    [['--config', 'none.ts'], /none\.ts: ENOENT.*ERR_KOCI_IO/],
    [
      ['--config', 'hooks.config.ts', '--no-hooks'],
      /--no-hooks: hooks are in the chain already, by \S+hooks\.config\.ts - leave out --no-hooks, or hooks there/,
    ],
  ]
  for (const [words, message] of cases) {
    const { code, stderr } = await run('explain', '--image', 'images:a', ...words)
    t.equal(code, 1)
    t.match(stderr, message)
  }
})

await t.test(
  'what is wrong with a file is said with its name, and the line if there is one',
  async t => {
    const { base, write } = await setUp(t)
    write('broken.ts', 'export const\nx = ')
    const example = /write export default app => app\.use\(…\)/
    const cases: [name: string, text: string, line: string, reason: RegExp][] = [
      ['none.ts', 'export const x = 1', '', /no default export - write/],
      ['number.ts', 'export default 1', '', example],
      [
        'driver.ts',
        "export default { name: 'x' }",
        '',
        /not a function, but of type object - write/,
      ],
      [
        'returns.ts',
        "export default () => ({ name: 'x' })",
        '',
        /added nothing to the chain - write/,
      ],
      [
        'misspelt.ts',
        'export default (app: any) => {\n app.usee()\n}',
        ':2',
        /app\.usee is not a/,
      ],
      [
        'throws.js',
        "\n\nexport default () => { throw new Error('no luck') }",
        ':3',
        /: no luck$/,
      ],
      ['early.js', "throw new Error('no luck')", ':1', /: no luck$/],
      ['word.js', "export default async () => { throw 'x' }", '', /it threw x$/],
      [
        'string.ts',
        "export default (app: any) => app.use('cache')",
        ':1',
        /not a middleware: string/,
      ],
      ['syntax.ts', 'export default (\n', ':1', /Expression expected/],
      ['syntax.js', 'export default (\n', '', /Unexpected end/],
      ['enum.ts', 'export default () => {}\nenum A { x }', ':2', /enum is not supported/],
      ['package.ts', "import 'koci-no-such'", '', /Cannot find package 'koci-no-such'/],
      [
        'name.ts',
        "import { caches } from 'koci'",
        ':1',
        /no?t? provide an export named 'caches'/,
      ],
      [
        'options.ts',
        "import { cache } from 'koci'\nexport default a => a.use(cache({ x: 1 }))",
        ':2',
        /x/,
      ],
      ['require.js', 'module.exports = 1', ':1', /module is not defined/],
      ['require.cjs', 'module.exports = 1', '', /has to end in \.ts, \.mts, \.js, \.mjs/],
      ['koci.config.json', '{}', '', /has to end in/],
    ]
    for (const [name, text, line, message] of cases)
      await t.rejects(
        runConfig(write(name, text)),
        {
          code: 'ERR_KOCI_INVALID_CONFIG_FILE',
          message,
          details: { subject: `${base}/${name}${line}` },
        },
        name,
      )
    await t.rejects(runConfig(write('imports.ts', "import './broken.ts'")), {
      code: 'ERR_KOCI_INVALID_CONFIG_FILE',
      details: { subject: `${base}/broken.ts:2` },
    })
  },
)

await t.test(
  'files that somebody else could have written do not count, and are not run',
  async t => {
    const { base, write } = await setUp(t)
    const text = `import { writeFileSync } from 'node:fs'\nwriteFileSync('${base}/ran', '')\n`
    const cases: [what: string, file: string][] = [
      ['can be written by its group', write('group.ts', text, 0o664)],
      ['can be written by everybody', write('all.js', text, 0o646)],
      ['can be written by everybody', write('open/config.ts', text)],
      ['can be written by its group', write('imports.ts', `import './side.ts'`)],
      ['is not a regular file', path.join(base, 'directory.ts')],
    ]
    mkdirSync(`${base}/directory.ts`)
    chmodSync(`${base}/open`, 0o777)
    write('side.ts', text, 0o664)
    symlinkSync('open/config.ts', `${base}/link.ts`)
    cases.push(['can be written by everybody', `${base}/link.ts`])
    // what the file imports counts, too, where the file itself is reached by a link
    write('elsewhere/imports.ts', `import './side.ts'`)
    write('elsewhere/side.ts', text, 0o664)
    symlinkSync('elsewhere/imports.ts', `${base}/link-imports.ts`)
    cases.push(['can be written by its group', `${base}/link-imports.ts`])
    for (const [message, file] of cases)
      await t.rejects(runConfig(file), {
        code: 'ERR_KOCI_UNTRUSTED',
        message: new RegExp(message),
      })
    t.notOk(existsSync(`${base}/ran`))
    chmodSync(`${base}/open`, 0o755)
    await runConfig(write('fine.ts', `${text}export default () => {}`))
    t.equal(readFileSync(`${base}/ran`, 'utf8'), '')
  },
)

await t.test('a driver in a file has koci, too, wherever it is', async t => {
  const { write, run, unpack } = await withImage(t)
  write(
    'mine.ts',
    "import { filter, type Driver } from 'koci'\nexport default (): Driver => ({ name: filter.name })",
  )
  t.same(await unpack('--use', './mine.ts', 'bundle'), { code: 0, stdout: '', stderr: '' })
  const { stdout } = await run('explain', '--bundle', 'bundle', '--use', './mine.ts')
  t.match(stdout, /filter +\(--use\) would run/)
})
