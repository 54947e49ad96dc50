import t from 'tap'
import type { Driver } from '../../../lib/driver.ts'
import { testDriver, type Tester } from '../../../lib/testing/index.ts'

const broken: Driver = {
  name: 'broken',
  unpack() {
    throw new RangeError('the driver is broken')
  },
}

await t.test('what fails is told, not that its remains could not be removed', async t => {
  const told = new Map<string, Error>()
  const tester: Tester = {
    async test(name, _options, run) {
      await Promise.resolve(run()).catch((error: Error) => told.set(name, error))
    },
  }
  await testDriver(tester, {
    create: () => [broken],
    scratch: t.testdir(),
    clear: () => Promise.reject(new RangeError('not to be removed')),
  })
  t.ok(told.size > 5)
  for (const [name, { message }] of told) t.match(message, /is broken/, name)
})

await t.test('that it could not be removed is told where nothing else failed', async t => {
  const told: unknown[] = []
  const tester: Tester = {
    async test(_name, _options, run) {
      await Promise.resolve(run()).catch(error => told.push(error))
    },
  }
  await testDriver(tester, {
    create: () => [],
    scratch: t.testdir(),
    clear: () => Promise.reject(new RangeError('not to be removed')),
  })
  t.ok(told.length > 5)
  t.match(
    told,
    told.map(() => ({ message: 'not to be removed' })),
  )
})
