// Sums up TAP files: failures in full, reasons of skipped tests counted, then the names of the failures once more (what
// shows a part of a long output shows its end), and the closing line of .ci/run.
import { readFileSync } from 'node:fs'
import { Parser, type Result } from 'tap-parser'

const failures: string[] = []
const skipped = new Map<string, number>()
let passed = 0
let failed = 0

for (const file of process.argv.slice(2)) read(file)

for (const failure of failures) console.log(failure)
for (const [reason, count] of [...skipped].sort(([a], [b]) => a.localeCompare(b)))
  console.log(`skipped ${count}: ${reason}`)
for (const failure of failures) console.log(failure.split('\n', 1)[0])
const total = [...skipped.values()].reduce((sum, count) => sum + count, 0)
console.log(`${passed} passed, ${failed} failed${total === 0 ? '' : `, ${total} skipped`}`)
process.exitCode = failed === 0 && passed > 0 ? 0 : 1

function read(file: string): void {
  const parser = new Parser()
  watch(parser, [])
  parser.on('bailout', reason => fail(`${file}: bailed out: ${reason}`))
  parser.on('complete', results => {
    if (!results.ok && failed === 0) fail(`${file}: ${results.failures.length} failures`)
    if (results.count === 0) fail(`${file}: no test was run`)
  })
  parser.end(readFileSync(file, 'utf8'))
}

/** Counts assertions that aren't subtests themselves. */
function watch(parser: Parser, path: readonly string[]): void {
  const children = new Set<string>()
  parser.on('child', child => {
    children.add(child.name)
    watch(child, [...path, child.name])
  })
  parser.on('assert', (result: Result) => {
    const name = [...path, result.name].join(' > ')
    if (result.skip) count(typeof result.skip === 'string' ? result.skip : 'without a reason')
    else if (!result.ok && !result.todo) {
      if (!children.has(result.name) || !failures.some(text => text.includes(name)))
        fail(`not ok: ${name}${details(result)}`)
    } else if (!children.has(result.name)) passed += 1
  })
}

function fail(text: string): void {
  failures.push(text)
  failed += 1
}

function count(reason: string): void {
  skipped.set(reason, (skipped.get(reason) ?? 0) + 1)
}

function details({ diag }: Result): string {
  return diag ? `\n${JSON.stringify(diag, undefined, 2).replaceAll(/^/gm, '    ')}` : ''
}
