// The rules of the house that no compiler holds: who may import whom, how large the framework is, what is documented.
import { readFileSync } from 'node:fs'
import { glob } from 'node:fs/promises'
import path from 'node:path'
import t from 'tap'

const root = path.resolve(import.meta.dirname, '../..')
const sources = await files('{lib,middleware,bin,bench}/**/*.ts')

/** `from` may import only what one of `to` matches; relative paths from the root, or package names. */
const directions: { from: RegExp; to: RegExp[]; why: string }[] = [
  {
    from: /^lib\/oci\//,
    to: [/^lib\/oci\//, /^lib\/(errors|text)\.ts$/, /^node:/],
    why: 'spec code knows nothing but errors',
  },
  {
    from: /^lib\//,
    to: [/^lib\//, /^node:/, /^(emittery|koffi|tar-stream)$/],
    why: 'lib knows no driver, no command line',
  },
  {
    from: /^lib\/fs\//,
    to: [/^lib\/fs\//, /^lib\/(errors|text)\.ts$/, /^node:/, /^koffi$/],
    why: 'lib/fs is what Node lacks, not koci',
  },
  {
    from: /^middleware\/index\.ts$/,
    to: [/^middleware\//, /^lib\/index\.ts$/],
    why: 're-exports only',
  },
  {
    from: /^middleware\/(?!index)/,
    to: [/^lib\//, /^node:/, /^SELF$/, /^toml-eslint-parser$/],
    why: 'drivers never know each other',
  },
  {
    from: /^middleware\/(?!hooks\/|index)/,
    to: [/^(?!toml-eslint-parser$)/],
    why: 'only hooks have a file to parse',
  },
  {
    from: /^bin\//,
    to: [/^bin\//, /^lib\//, /^middleware\//, /^node:/, /^yargs(-parser)?$/, /^package\.json$/],
    why: 'the command line is on top',
  },
  {
    from: /^bench\//,
    to: [/^bench\//, /^lib\//, /^middleware\//, /^node:/, /^yargs$/],
    why: 'what is measured is the built command line, and parts of the library',
  },
]

for (const file of sources)
  await t.test(`${file} imports only what it may`, async t => {
    const home = file.split('/').slice(0, 2).join('/')
    for (const target of importsOf(file))
      for (const { from, to, why } of directions) {
        if (!from.test(file)) continue
        const seen =
          file.startsWith('middleware/') && target.startsWith(`${home}/`) ? 'SELF' : target
        t.ok(
          to.some(allowed => allowed.test(seen)),
          `${target}: ${why}`,
        )
      }
    t.pass('no import is forbidden')
  })

await t.test('the framework stays small', async t => {
  const framework = ['application', 'compose', 'context', 'driver', 'errors']
  const lines = framework.map(name => read(`lib/${name}.ts`).trimEnd().split('\n').length)
  t.ok(sum(lines) <= 600, `${framework.join(', ')}: ${sum(lines)} lines, at most 600`)

  const all = [...framework, 'unpack', 'repack'].map(name => codeLines(read(`lib/${name}.ts`)))
  t.ok(sum(all) <= 620, `with unpack and repack: ${sum(all)} lines of code, at most 620`)
})

await t.test('only createError makes errors', async t => {
  for (const file of sources) {
    if (file === 'lib/errors.ts') continue
    t.notMatch(read(file), /new (Type|Range|Aggregate)?Error\(/, file)
  }
})

// lib/fs is not public, and most of its functions are a system call's namesake: the manual page says the rest
await t.test('every export has a docstring', async t => {
  for (const file of sources.filter(name => !/^(bin|lib\/fs)\//.test(name))) {
    const lines = read(file).split('\n')
    const bare = lines.filter(
      (line, at) =>
        /^export (async )?(function|class|const|interface|type|abstract)\b(?!\*? ?\{)/.test(
          line,
        ) &&
        !/(\*\/|^\/\/.*)$/.test(lines[at - 1] ?? '') &&
        !/^export (async )?function \w+/.test(lines[at - 1] ?? ''),
    )
    t.strictSame(bare, [], `${file}: exports without a docstring`)
  }
})

await t.test('every file says first what it is', async t => {
  for (const file of sources)
    t.match(read(file), /^(#!.*\n)?\/\/ \S/, `${file} starts with a comment`)
})

await t.test('every dependency has its reason', async t => {
  const { dependencies, devDependencies } = JSON.parse(read('package.json'))
  const reasons = read('docs/dependencies.md')
  for (const name of Object.keys({ ...dependencies, ...devDependencies }))
    t.match(reasons, new RegExp(`^\\| \`${name}\` \\| \\S`, 'm'), name)
})

function importsOf(file: string): string[] {
  const imports =
    /^(?:import|export|\}).* from '([^']+)'$|^import '([^']+)'$|\bimport\('([^']+)'\)/gm
  return [...read(file).matchAll(imports)].map(([, from, bare, lazy]) => {
    const name = from ?? bare ?? lazy ?? ''
    return name.startsWith('.') ? path.join(path.dirname(file), name) : name
  })
}

function read(file: string): string {
  return readFileSync(path.join(root, file), 'utf8')
}

async function files(pattern: string): Promise<string[]> {
  return (await Array.fromAsync(glob(pattern, { cwd: root }))).sort()
}

function codeLines(text: string): number {
  return text.split('\n').filter(line => !/^\s*(\/\/|\/\*|\*|$)/.test(line)).length
}

function sum(numbers: number[]): number {
  return numbers.reduce((total, number) => total + number, 0)
}
