// The same command lines by umoci and by koci under its name, on copies of the same files: the same exit status, the same
// layout, bundles and listings. Where koci differs on purpose, docs/umoci.md has a row that says why. What fails changes
// nothing.
import { readFileSync, symlinkSync } from 'node:fs'
import path from 'node:path'
import t from 'tap'
import { koci, program, several } from '../bin/run-koci.ts'
import { umoci } from '../bin/umoci.ts'
import { isRoot, temporary, umociMissing } from '../support/peers.ts'
import { rows, type Row } from './command-lines.ts'
import { copyFixture, makeFixture, steps } from './fixture.ts'
import { observe, untouched } from './observe.ts'

const differences = readFileSync(
  path.resolve(import.meta.dirname, '../../docs/umoci.md'),
  'utf8',
)
const all = Object.values(rows).flat()

interface Line {
  readonly text: string
  readonly differs: string | undefined
  readonly code: number | undefined
}

function toLine(row: Row): Line {
  const [text, differs, code] = typeof row === 'string' ? [row] : row
  return { text, differs, code }
}

await t.test('there are enough of them, and every difference is documented', async t => {
  t.ok(all.length >= 150, `${all.length} command lines`)
  for (const { differs } of all.map(toLine))
    if (differs !== undefined) t.match(differences, `| \`${differs}\` |`)
})

await t.test('koci does what umoci does', { skip: umociMissing(!isRoot) }, async t => {
  const base = temporary(t, 'lines')
  await makeFixture(path.join(base, 'fixture'))
  const called = path.join(base, 'umoci')
  symlinkSync(program, called)

  const run = async (who: 'koci' | 'umoci', at: string, { text }: Line) => {
    const cwd = path.join(base, at)
    copyFixture(path.join(base, 'fixture'), cwd)
    const codes: (number | null)[] = []
    let stdout = ''
    let stderr = ''
    let before: readonly string[] = []
    for (const words of text.split(' ; ')) {
      before = untouched(cwd)
      const step = steps[words]
      if (step) step(cwd)
      else {
        const args = toArguments(words)
        const end = await (who === 'umoci'
          ? umoci(args, { cwd })
          : koci(args, { cwd, file: called }))
        codes.push(end.code)
        stdout = end.stdout
        stderr = end.stderr
      }
    }
    return { cwd, codes, stdout, stderr, before }
  }

  for (const [command, list] of Object.entries(rows))
    await t.test(command, async t => {
      await several([...list.map(toLine).entries()], async ([at, line]) => {
        const name = `${command.replaceAll(' ', '-')}-${at}`
        const ours = await run('koci', `${name}-koci`, line)
        const code = ours.codes.at(-1)
        if (code !== 0)
          t.same(untouched(ours.cwd), ours.before, `${line.text}: nothing was changed`)
        if (line.differs !== undefined) {
          t.equal(code, line.code, `${line.text}: ${ours.stderr}`)
          return
        }
        const theirs = await run('umoci', `${name}-umoci`, line)
        t.same(ours.codes, theirs.codes, `${line.text}\n${ours.stderr}${theirs.stderr}`)
        if (code !== 0) return
        t.same(observe(ours, line.text), observe(theirs, line.text), line.text)
      })
    })
})

function toArguments(words: string): string[] {
  const [uid, gid] = [process.geteuid?.() ?? 0, process.getegid?.() ?? 0].map(String)
  return words
    .split(' ')
    .flatMap(word => (word === 'ROOTLESS' ? (isRoot ? [] : ['--rootless']) : [word]))
    .map(word =>
      word === '_' ? '' : word.replace('OWNGROUP', gid ?? '0').replace('OWN', uid ?? '0'),
    )
}
