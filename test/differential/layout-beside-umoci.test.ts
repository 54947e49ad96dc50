// The commands that change layouts and tags, beside umoci.
import { readFileSync } from 'node:fs'
import path from 'node:path'
import t from 'tap'
import { isRoot, umociMissing } from '../support/peers.ts'
import { rows, toLine } from './command-lines.ts'
import { compareLines } from './compare-lines.ts'

const commands = ['the program', 'init', 'new', 'tag', 'remove', 'list', 'gc', 'stat']

await t.test('there are enough of them, and every difference is documented', async t => {
  const file = path.resolve(import.meta.dirname, '../../docs/umoci.md')
  const differences = readFileSync(file, 'utf8')
  const all = Object.values(rows).flat().map(toLine)
  t.ok(all.length >= 200, `${all.length} command lines`)
  for (const { differs } of all)
    if (differs !== undefined) t.match(differences, `| \`${differs}\` `)
})

await t.test('koci does what umoci does', { skip: umociMissing(!isRoot) }, t =>
  compareLines(t, commands),
)
