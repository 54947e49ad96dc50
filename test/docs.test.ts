// What the documentation says is held: its programs compile, its links lead somewhere, its options exist.
import { spawnSync } from 'node:child_process'
import { existsSync, globSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import t from 'tap'
import { allCommands } from '../bin/commands.ts'
import { globalOptions } from '../bin/options.ts'

const root = path.resolve(import.meta.dirname, '..')
const documents = globSync(['*.md', 'docs/**/*.md', 'middleware/*/README.md'], {
  cwd: root,
}).sort()

const named = /^`([\w-]+\.ts)`:\n\n```ts\n(.*?)^```/gms

await t.test('every program in the documentation compiles', async t => {
  const directory = t.testdir()
  // those that others import
  for (const document of documents)
    for (const [, name = '', module = ''] of read(document).matchAll(named))
      writeFileSync(path.join(directory, name), module)
  for (const document of documents)
    for (const [at, program] of programsOf(read(document)).entries())
      writeFileSync(path.join(directory, `${document.replaceAll('/', '-')}-${at}.ts`), program)
  const up = path.relative(directory, root)
  const config = {
    extends: `${up}/tsconfig.json`,
    compilerOptions: {
      isolatedDeclarations: false,
      declaration: false,
      noUnusedLocals: false,
      typeRoots: [`${up}/node_modules/@types`],
      paths: {
        'koci/testing': [`${up}/lib/testing/index.ts`],
        koci: [`${up}/middleware/index.ts`],
        'koci/*': [`${up}/middleware/*/index.ts`],
      },
    },
    include: ['*.ts'],
  }
  mkdirSync(directory, { recursive: true })
  writeFileSync(path.join(directory, 'tsconfig.json'), JSON.stringify(config))
  t.ok(globSync('README.md-*.ts', { cwd: directory }).length > 0)
  // tap would put its loaders into tsc
  const { stdout } = spawnSync(
    '/usr/bin/env',
    ['-u', 'NODE_OPTIONS', path.join(root, 'node_modules/.bin/tsc'), '-p', directory],
    { encoding: 'utf8', timeout: 60_000 },
  )
  const own = stdout.split('\n').filter(line => line.includes('.md-'))
  t.same(own, [])
})

await t.test('every relative link leads to a file', async t => {
  for (const document of documents)
    for (const [, target = ''] of read(document).matchAll(/\]\((?!https?:|#)([^)#\s]+)/g))
      t.ok(
        existsSync(path.join(root, path.dirname(document), target)),
        `${document}: ${target}`,
      )
})

await t.test('docs/cli.md describes every command and every option', async t => {
  const text = read('docs/cli.md')
  for (const { name, alias, load } of allCommands()) {
    t.match(text, new RegExp(`^### .*\`koci ${name}[ \`]`, 'm'), name)
    if (alias !== undefined) t.match(text, new RegExp(`\`koci ${alias}[ \`]`), alias)
    for (const option of Object.keys((await load()).options))
      t.ok(text.includes(`--${option}`), `${name} --${option}`)
  }
  for (const option of Object.keys(globalOptions))
    t.ok(text.includes(`\n| \`--${option}`), option)
})

await t.test('every driver has a page that follows the template', async t => {
  const headings = ['When to use', 'Example', 'Options', 'State it adds', 'Order and flags']
  for (const driver of globSync('middleware/*/index.ts', { cwd: root })) {
    const page = path.join(path.dirname(driver), 'README.md')
    t.match(read(page), `# ${path.basename(path.dirname(driver))}()`)
    for (const heading of [...headings, 'Limitations']) t.match(read(page), `\n## ${heading}\n`)
    t.match(read('README.md'), `(${page})`)
  }
})

/** The `ts` fences of a document; one without an import goes on with the one before. */
function programsOf(text: string): string[] {
  const programs: string[] = []
  for (const [, code = ''] of text.matchAll(/^```ts\n(.*?)^```/gms)) {
    const isContinued = !/^import /m.test(code) && programs.length > 0
    if (isContinued) programs.push(`${programs.pop() ?? ''}\n${code}`)
    else programs.push(code)
  }
  return programs
}

function read(file: string): string {
  return readFileSync(path.join(root, file), 'utf8')
}
