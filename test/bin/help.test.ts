import { symlinkSync } from 'node:fs'
import path from 'node:path'
import t from 'tap'
import { allCommands, program } from '../../bin/commands.ts'
import { globalOptions } from '../../bin/options.ts'
import { parse } from '../../bin/parse.ts'
import { splitArgs } from '../../bin/split-args.ts'
import { koci, program as source, several } from './run-koci.ts'

await t.test('without a command, and with --help, koci shows its commands', async t => {
  const lines = [[], ['--help'], ['-h'], ['help'], ['h'], ['--strict'], ['--strict', '--help']]
  const outcomes = await several(lines, args => koci(args))
  for (const { code, stdout, stderr } of outcomes) {
    t.equal(code, 0)
    t.equal(stderr, '')
    for (const { name, description } of program.commands)
      t.match(stdout, `koci ${name} `, description)
    fits(t, stdout)
  }
})

await t.test('every command has help, asked for in any way', async t => {
  const names = allCommands().flatMap(({ name, alias }) =>
    alias === undefined ? [name] : [name, alias],
  )
  const outcomes = await several(names, async name => [
    await koci(['help', ...name.split(' ')]),
    await koci([...name.split(' '), '--help']),
    await koci([...name.split(' '), '--nonsense', '-h']),
  ])
  for (const [at, [topic, ...others]] of outcomes.entries()) {
    t.equal(topic?.code, 0)
    t.equal(topic?.stderr, '')
    t.match(
      topic?.stdout,
      /^koci [\w -]+(, [\w-]+)? - .+\n\nUsage: koci .+\n/,
      String(names[at]),
    )
    fits(t, topic?.stdout ?? '')
    for (const other of others) t.same(other, topic)
  }
})

await t.test('a group shows its commands', async t => {
  const lines = [
    ['raw'],
    ['raw', '--help'],
    ['raw', 'help'],
    ['help', 'raw'],
    ['raw', '--strict'],
  ]
  const outcomes = await several(lines, args => koci(args))
  for (const { code, stdout, stderr } of outcomes) {
    t.equal(code, 0)
    t.equal(stderr, '')
    t.match(stdout, /^koci raw - .+\n\nUsage: koci raw <command>/)
    t.match(stdout, 'koci raw runtime-config ')
    fits(t, stdout)
  }
  t.same(await koci(['raw', 'help', 'config']), await koci(['help', 'raw', 'runtime-config']))
})

await t.test('called as umoci, help and version begin as its do', async t => {
  const file = path.join(t.testdir(), 'umoci')
  symlinkSync(source, file)
  const help = await koci(['help', 'ls'], { file })
  t.match(help.stdout, /^NAME:\n {3}umoci list - .+\n\nUsage: umoci list --layout=path/)
  t.match(help.stdout, 'umoci ls --layout images')
  t.match((await koci([], { file })).stdout, /^NAME:\n {3}umoci - /)
  t.match((await koci(['-v'], { file })).stdout, /^umoci version 0\.6\.0\+koci\.\d/)
  const { code, stderr } = await koci(['nonsense'], { file })
  t.equal(code, 3)
  t.match(stderr, /^umoci: nonsense: no such command - umoci help lists/)
})

for (const entry of allCommands())
  await t.test(`the examples of ${entry.name} can be run`, async t => {
    const command = await entry.load()
    t.ok(command.examples.length > 0)
    for (const example of command.examples) {
      const names = [entry.name, ...(entry.alias === undefined ? [] : [entry.alias])]
      const name = names.find(each => `${example} `.startsWith(`koci ${each} `))
      t.ok(name, example)
      const args = example.split(' ').slice(1 + (name ?? '').split(' ').length)
      const split = splitArgs(args, { ...globalOptions, ...command.options }, 'koci')
      t.doesNotThrow(() => parse(entry, command, split))
    }
  })

function fits(
  t: { same: (found: unknown, wanted: unknown, message: string) => unknown },
  text: string,
): void {
  t.same(
    text.split('\n').filter(line => line.length > 80),
    [],
    'fits 80 columns',
  )
}
