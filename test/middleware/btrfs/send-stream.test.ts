// The stream as bytes: what is read of it, and that what isn't understood isn't guessed.
import t from 'tap'
import { replay } from '../../../middleware/btrfs/replay.ts'
import { readSendStream, type SendCommand } from '../../../middleware/btrfs/send-stream.ts'

type Attribute = readonly [type: number, value: string]

function header(version = 1): Buffer {
  const bytes = Buffer.from('btrfs-stream\0\0\0\0\0')
  bytes.writeUInt32LE(version, 13)
  return bytes
}

function command(number: number, ...attributes: readonly Attribute[]): Buffer {
  const body = attributes.map(([type, value]) => {
    const head = Buffer.alloc(4)
    head.writeUInt16LE(type, 0)
    head.writeUInt16LE(value.length, 2)
    return Buffer.concat([head, Buffer.from(value, 'latin1')])
  })
  const head = Buffer.alloc(10)
  head.writeUInt32LE(Buffer.concat(body).length, 0)
  head.writeUInt16LE(number, 4)
  return Buffer.concat([head, ...body])
}

const end = command(21)
const read = (...parts: readonly Buffer[]): SendCommand[] => [
  ...readSendStream(Buffer.concat(parts)),
]

await t.test('commands', async t => {
  const commands = read(
    header(),
    command(2, [15, 'newer']),
    command(3, [15, 'o257-7-0'], [3, '12345678']),
    command(9, [15, 'o257-7-0'], [16, 'a\xff']),
    command(10, [15, 'b'], [17, 'a\xff']),
    command(12, [15, 'd']),
    command(22, [15, 'a\xff']),
    end,
    Buffer.from('whatever follows'),
  )
  t.strictSame(
    commands.map(({ kind, path, to }) => [
      kind,
      path.toString('latin1'),
      to?.toString('latin1'),
    ]),
    [
      ['make', 'o257-7-0', undefined],
      ['rename', 'o257-7-0', 'a\xff'],
      ['link', 'b', undefined],
      ['remove', 'd', undefined],
      ['change', 'a\xff', undefined],
    ],
  )
})

await t.test('times are told apart from other changes', async t => {
  const time = Buffer.alloc(12)
  time.writeBigInt64LE(-2n, 0)
  time.writeUInt32LE(5, 8)
  const mtime = time.toString('latin1')
  const commands = read(
    header(),
    command(20, [15, 'read'], [11, '123456789012'], [10, mtime], [9, '123456789012']),
    command(18, [15, 'changed'], [5, '12345678']),
    command(20, [15, 'changed'], [10, mtime]),
    command(20, [15, 'd/moved'], [10, mtime]),
    command(9, [15, 'd'], [16, 'e']),
    command(3, [15, 'new']),
    command(20, [15, 'new'], [10, mtime]),
    command(20, [15, 'untold']),
    command(20, [15, 'cut off'], [10, mtime.slice(1)]),
    end,
  )
  t.equal(commands[0]?.mtime, -1_999_999_995n)
  const { paths, trees, times } = replay(commands)
  t.strictSame([...paths].sort(), ['changed', 'cut off', 'new', 'untold'])
  t.strictSame([...trees].sort(), ['d', 'd/moved', 'e', 'e/moved', 'new'])
  t.strictSame([...times], [['read', -1_999_999_995n]])
})

const notUnderstood: [what: string, parts: Buffer[]][] = [
  ['nothing', []],
  ['another format', [Buffer.from('something else, and long enough')]],
  ['another version', [header(2), end]],
  ['a command that nobody knows', [header(), command(26, [15, 'a']), end]],
  ['no end', [header(), command(3, [15, 'a'])]],
  ['an end in the middle', [header(), command(3, [15, 'a']).subarray(0, -1)]],
  ['a command without a path', [header(), command(3), end]],
  ['a rename to nowhere', [header(), command(9, [15, 'a']), end]],
  [
    'an attribute that is cut off',
    [header(), Buffer.from('\x02\0\0\0\x03\0\0\0\0\0\x0f\0', 'latin1'), end],
  ],
  [
    'a value that is cut off',
    [header(), Buffer.from('\x04\0\0\0\x03\0\0\0\0\0\x0f\0\x09\0', 'latin1'), end],
  ],
]
for (const [what, parts] of notUnderstood)
  await t.test(what, async t => {
    t.throws(() => read(...parts), { code: 'ERR_KOCI_UNSUPPORTED_VERSION' })
  })

type Told = readonly [kind: SendCommand['kind'], path: string, to?: string]
const replayed: [what: string, told: Told[], paths: string[], trees: string[]][] = [
  ['nothing', [], [], []],
  ['the root', [['change', '']], [''], []],
  [
    'a new file under a temporary name',
    [
      ['make', 'o1'],
      ['rename', 'o1', 'd/a'],
      ['change', 'd/a'],
    ],
    ['d/a'],
    [],
  ],
  [
    'a directory that is moved',
    [
      ['rename', 'd', 'e'],
      ['change', 'e/x'],
    ],
    [],
    ['d', 'd/x', 'e', 'e/x'],
  ],
  [
    'what was moved out of the way, and came back',
    [
      ['rename', 'd', 'o2'],
      ['rename', 'o2', 'd'],
    ],
    [],
    ['d'],
  ],
  [
    'what is deleted beneath a temporary name',
    [
      ['rename', 'd', 'o2'],
      ['remove', 'o2/x'],
      ['remove', 'o2'],
    ],
    [],
    ['d'],
  ],
  [
    'a name that is given to something else',
    [
      ['remove', 'a'],
      ['make', 'o3'],
      ['rename', 'o3', 'a'],
    ],
    ['a'],
    ['a'],
  ],
]
for (const [what, told, paths, trees] of replayed)
  await t.test(`replayed: ${what}`, async t => {
    const places = replay(
      told.map(([kind, path, to]) => ({
        kind,
        path: Buffer.from(path),
        ...(to !== undefined && { to: Buffer.from(to) }),
      })),
    )
    for (const path of paths)
      t.ok(places.paths.has(path) || places.trees.has(path), `path ${path}`)
    for (const path of trees) {
      const isCovered = [...places.trees].some(
        tree => path === tree || path.startsWith(`${tree}/`),
      )
      t.ok(isCovered, `tree ${path}`)
    }
    const unexpected = [...places.paths, ...places.trees].filter(
      path => !/^o\d/.test(path) && ![...paths, ...trees].includes(path),
    )
    t.strictSame(unexpected, [])
  })
