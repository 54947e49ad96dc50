import t from 'tap'
import { commandNames, commands } from '../../bin/commands.ts'
import { globalOptions } from '../../bin/options.ts'
import { parse } from '../../bin/parse.ts'
import { splitArgs } from '../../bin/split-args.ts'
import { koci, several } from './run-koci.ts'

await t.test('without a command, and with --help, koci shows its commands', async t => {
  const lines = [[], ['--help'], ['-h'], ['help'], ['h'], ['--strict'], ['--strict', '--help']]
  const outcomes = await several(lines, args => koci(args))
  for (const { code, stdout, stderr } of outcomes) {
    t.equal(code, 0)
    t.equal(stderr, '')
    for (const { name, description } of commands) t.match(stdout, `koci ${name} `, description)
    fits(t, stdout)
  }
})

await t.test('every command has help, asked for in any way', async t => {
  const names = commandNames()
  const outcomes = await several(names, async name => [
    await koci(['help', name]),
    await koci([name, '--help']),
    await koci(['--nonsense', name, '-h'].slice(1)),
  ])
  for (const [at, [topic, ...others]] of outcomes.entries()) {
    t.equal(topic?.code, 0)
    t.equal(topic?.stderr, '')
    t.match(topic?.stdout, /^koci \w+(, \w+)? - .+\n\nUsage: koci .+\n/, String(names[at]))
    fits(t, topic?.stdout ?? '')
    for (const other of others) t.same(other, topic)
  }
})

for (const entry of commands)
  await t.test(`the examples of ${entry.name} can be run`, async t => {
    const command = await entry.load()
    t.ok(command.examples.length > 0)
    for (const example of command.examples) {
      const [program, name = '', ...args] = example.split(' ')
      t.equal(program, 'koci')
      t.ok([entry.name, entry.alias].includes(name))
      const split = splitArgs(args, { ...globalOptions, ...command.options }, 'koci')
      await t.resolves(parse(entry, command, split))
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
