// The reference in docs/middleware.md names every step, field, event, warning and member of a driver that there is, and
// nothing else. What each of them means is told by people; that none is missing is told here, from the sources.
import { globSync, readFileSync } from 'node:fs'
import path from 'node:path'
import t from 'tap'
import { steps, type Step } from '../../lib/driver.ts'

const root = path.resolve(import.meta.dirname, '../..')
const document = read('docs/middleware.md')
const context = read('lib/context.ts')

await t.test('steps, in their order', async t => {
  t.same(
    rowsOf('Steps').map(([step = '']) => words(step)[0]),
    steps,
  )
})

await t.test('what all contexts share', async t => {
  const declared = membersOf(context, /class Context \{/).filter(name => name !== 'with')
  t.same(named(tableAfter('All contexts of a run share these')), declared)
})

await t.test('what steps add', async t => {
  const documented: string[] = []
  let at: string[] = []
  for (const [step = '', fields = ''] of tableAfter('A step adds its own')) {
    if (step !== '') at = words(step)
    documented.push(...at.flatMap(name => words(fields).map(field => `${name} ${field}`)))
  }
  const declared = steps.flatMap(step => ownFields(step).map(field => `${step} ${field}`))
  t.same(documented.sort(), declared.sort())
})

await t.test('layers, and how they are put on disk', async t => {
  const forKociItself = [
    'placeExtracted',
    'recall',
    'reopen',
    'reportProgress',
    'seal',
    'toJSON',
  ]
  const tables = [
    ['A layer, as `ctx.layer`', 'lib/layer/layer.ts', /class Layer \{/],
    ['How layers are put on disk', 'lib/layer/extraction.ts', /class Extraction \{/],
  ] as const
  for (const [title, file, start] of tables) {
    const declared = membersOf(read(file), start).filter(name => !forKociItself.includes(name))
    t.same(named(tableAfter(title)), declared, file)
  }
})

await t.test('events, and what a listener is given', async t => {
  const source = read('lib/events.ts')
  const shared: Record<string, string[]> = { RunEvent: [] }
  for (const [, name = '', body = ''] of source.matchAll(/interface (\w+)[^{]*\{(.*?)\n\}/gs))
    shared[name] = fieldsIn(body).filter(field => field !== 'run')
  const map = source.slice(source.indexOf('interface KociEvents'))
  const declared = [...map.matchAll(/^ {2}'?([\w:]+)'?: (.+)$/gm)].map(
    ([, name, type = '']) => {
      const inherited = [...type.matchAll(/\b([A-Z]\w+)\b(?! ?\[)/g)].flatMap(
        ([, each = '']) => shared[each] ?? [],
      )
      const own = fieldsIn(/\{(.*)\}/.exec(type)?.[1] ?? '')
      return [name, [...inherited, ...own].sort()]
    },
  )
  t.equal(declared.length, 10)
  const documented = rowsOf('Events').map(([name = '', data = '']) => [
    words(name)[0],
    words(data).sort(),
  ])
  t.same(documented, declared)
})

await t.test('codes of warnings', async t => {
  const used = new Set<string>()
  for (const file of globSync('{lib,middleware,bin}/**/*.ts', { cwd: root }))
    for (const [, code = ''] of read(file).matchAll(
      /(?:\.(?:add|warn)(?:\?\.)?\(\s*|\bcode: )'([A-Z]+(?:_[A-Z]+)+)'/g,
    ))
      used.add(code)
  t.ok(used.size > 20)
  t.same(named(rowsOf('Warnings')), [...used].sort())
})

await t.test('members of a driver', async t => {
  const source = read('lib/driver.ts')
  const own = membersOf(source, /export type Driver = [^\n]*\{/)
  t.same(own, ['explain', 'name', 'options', 'recipe', 'requires'])
  t.same(
    named(listAfter('## Drivers for the command line')),
    own.filter(name => name !== 'name'),
  )
})

/** What the step's context has beside what all have. */
function ownFields(step: Step): string[] {
  const name = new RegExp(`^ {2}${step}: (\\w+)$`, 'm').exec(read('lib/driver.ts'))?.[1] ?? ''
  const [, type = ''] =
    new RegExp(`export type ${name} = (.*?)\n(?=\n|$)`, 's').exec(context) ?? []
  const picked = /Pick<\w+, ([^>]*)>/.exec(type)?.[1] ?? ''
  return [...picked.matchAll(/\w+/g), ...fieldsIn(type).map(field => [field])].map(
    ([field = '']) => field,
  )
}

/** Names of fields in a piece of a type. */
function fieldsIn(text: string): string[] {
  const code = text.replaceAll(/\/\*\*.*?\*\//gs, '')
  return [...code.matchAll(/(?:^|[{;\n])\s*(?:readonly )?(\w+)\??:/g)].map(
    ([, name = '']) => name,
  )
}

/** Names of public members of the class, or type, that begins there; sorted. */
function membersOf(source: string, start: RegExp): string[] {
  const at = start.exec(source)?.index ?? -1
  const body = source.slice(at, source.indexOf('\n}', at))
  const member =
    /^ {2}(?:declare )?(?:readonly )?(?:get )?([a-z]\w*)(?:\?|: |\(|<)(?!.*=> void\): )/gm
  const names = [...body.matchAll(member)].map(([, name = '']) => name)
  return [...new Set(names)].filter(name => name !== 'constructor' && name !== 'toJSON').sort()
}

/** The rows of the table in a section, as cells. */
function rowsOf(section: string): string[][] {
  return tableAfter(`\n## ${section}\n`)
}

/** The rows of the first table after some text. */
function tableAfter(text: string): string[][] {
  const from = document.indexOf(text)
  const [table = ''] = /^\| -+.*?(?=\n\n|\n$)/ms.exec(document.slice(from)) ?? []
  return table
    .split('\n')
    .slice(1)
    .map(line => line.split(' | ').map(cell => cell.replace(/^\| ?| \|$/g, '')))
}

/** The items of the first list after some text, as tables are. */
function listAfter(text: string): string[][] {
  const from = document.indexOf(text)
  const rest = document.slice(from).split('\n## ')[0] ?? ''
  return [...rest.matchAll(/^- \*\*(.*?)\*\*/gm)].map(([, item = '']) => [item])
}

/** What is named in the first cells, without arguments; sorted. */
function named(rows: string[][]): string[] {
  return rows.flatMap(([cell = '']) => words(cell)).sort()
}

/** The words of code in a cell. */
function words(cell: string): string[] {
  return [...cell.matchAll(/`([\w:]+)[^`]*`/g)].map(([, word = '']) => word)
}

function read(file: string): string {
  return readFileSync(path.join(root, file), 'utf8')
}
