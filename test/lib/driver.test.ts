import t from 'tap'
import { membersOf, steps, toDriver, type Driver } from '../../lib/driver.ts'

await t.test('a function is a driver for the layer step under its own name', async t => {
  const stamp = (): void => {}
  t.same(toDriver(stamp, 0), { name: 'stamp', layer: stamp })
  t.equal(toDriver(() => {}, 4).name, 'middleware #5')
})

await t.test('a driver stays what it is', async t => {
  const driver: Driver = {
    name: 'full',
    ...Object.fromEntries(steps.map(step => [step, () => {}])),
  }
  t.equal(toDriver(driver, 0), driver)
})

const wrong: [what: string, value: unknown, message: RegExp][] = [
  ['nothing', undefined, /^middleware #3: not a middleware: undefined/],
  ['null', null, /^middleware #3: /],
  ['text', 'cache', /^middleware #3: .*string/],
  ['an object without a name', { layer() {} }, /^middleware #3: .*needs a name/],
  ['an empty name', { name: '' }, /needs a name/],
  [
    'a misspelt step',
    { name: 'cache', lokate() {} },
    /^middleware cache: .*lokate is not a step/,
  ],
  [
    'a step that is no function',
    { name: 'cache', locate: true },
    /^middleware cache: .*locate is not a function/,
  ],
  ['a class instance with private helpers', { name: 'x', helper() {} }, /helper is not a step/],
]
for (const [what, value, message] of wrong)
  await t.test(`${what} is refused by name`, async t => {
    t.throws(() => toDriver(value as Driver, 2), {
      code: 'ERR_KOCI_INVALID_MIDDLEWARE',
      message,
    })
  })

await t.test('members of a step are in the order of use and keep their this', async t => {
  const seen: string[] = []
  const make = (name: string): Driver => ({
    name,
    mount() {
      seen.push(this.name)
    },
  })
  const members = membersOf([make('a'), { name: 'none' }, make('b')], 'mount')
  t.same(
    members.map(({ name }) => name),
    ['a', 'b'],
  )
  for (const { run } of members) run({} as never, () => Promise.resolve())
  t.same(seen, ['a', 'b'])
})
