import t from 'tap'
import type { Options } from '../../bin/command.ts'
import { findCommandWord, splitArgs } from '../../bin/split-args.ts'
import { didYouMean } from '../../bin/usage-error.ts'

const options: Options = {
  image: { type: 'text', description: '' },
  mask: { type: 'list', description: '' },
  force: { type: 'switch', description: '' },
  help: { type: 'switch', description: '' },
}

const lines: [name: string, args: string[], flags: string[], positionals: string[]][] = [
  ['options after positionals', ['b', '--force', 'c'], ['--force'], ['b', 'c']],
  ['a value apart', ['--image', 'x', 'b'], ['--image', 'x'], ['b']],
  ['a value with an equals sign', ['--image=x=y', 'b'], ['--image', 'x=y'], ['b']],
  ['one dash, as Go has it', ['-image', 'x', '-force'], ['--image', 'x', '--force'], []],
  ['a value that looks like an option', ['--image', '--force'], ['--image=--force'], []],
  ['an empty value', ['--image', '', '--mask='], ['--image', '', '--mask', ''], []],
  [
    'a list, in order, commas kept',
    ['--mask=a,b', '--mask', 'c'],
    ['--mask', 'a,b', '--mask', 'c'],
    [],
  ],
  ['a list takes one value at a time', ['--mask', 'a', 'b'], ['--mask', 'a'], ['b']],
  ['a switch takes no word after it', ['--force', 'true'], ['--force'], ['true']],
  ['a switch that is on', ['--force=1', '--force=T'], ['--force', '--force'], []],
  ['a switch that is off', ['--force=false', '--force=0'], [], []],
  [
    'nothing is an option after --',
    ['--force', '--', '--image', '-x'],
    ['--force'],
    ['--image', '-x'],
  ],
  ['-- as a value', ['--image', '--', 'b'], ['--image=--'], ['b']],
  ['a single dash is an argument', ['-'], [], ['-']],
  ['an empty word is an argument', ['', '--force'], ['--force'], ['']],
]

for (const [name, args, flags, positionals] of lines)
  await t.test(name, async t => {
    t.same(splitArgs(args, options, 'koci x'), { flags, positionals, help: false })
  })

await t.test('help wins over mistakes, but not as a value', async t => {
  t.equal(splitArgs(['--nope', '-h'], options, 'koci x').help, true)
  t.equal(splitArgs(['--image=a', '--image=b', '--help'], options, 'koci x').help, true)
  t.equal(splitArgs(['--image', '--help'], options, 'koci x').help, false)
  t.equal(splitArgs(['--', '--help'], options, 'koci x').help, false)
})

const words: [args: string, word: string | undefined, before: string[], after: string[]][] = [
  ['unpack --x y', 'unpack', [], ['--x', 'y']],
  ['--force --image i unpack b', 'unpack', ['--force', '--image', 'i'], ['b']],
  ['--image=i unpack', 'unpack', ['--image=i'], []],
  ['--nope unpack', undefined, ['--nope', 'unpack'], []],
  ['--force', undefined, ['--force'], []],
]

for (const [line, word, before, after] of words)
  await t.test(`the command of "${line}"`, async t => {
    t.same(findCommandWord(line.split(' '), options), { word, before, after })
  })

const near: [typed: string, meant: string | undefined][] = [
  ['unpakc', 'unpack'],
  ['UNPACK', 'unpack'],
  ['rep', 'repack'],
  ['unpackk', 'unpack'],
  ['lst', 'list'],
  ['x', undefined],
  ['frobnicate', undefined],
  ['', undefined],
]

for (const [typed, meant] of near)
  await t.test(`"${typed}" ${meant ? `is nearly ${meant}` : 'is near nothing'}`, async t => {
    const found = didYouMean(typed, ['unpack', 'repack', 'list', 'stat'])
    t.equal(found, meant === undefined ? '' : ` - did you mean ${meant}?`)
  })
