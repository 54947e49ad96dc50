// Middleware that takes part only where it is wanted.
import t from 'tap'
import { when } from '../../lib/combine.ts'
import { compose, type Middleware } from '../../lib/compose.ts'

await t.test('when() runs the middleware, or goes on without it', async t => {
  const seen: string[] = []
  const note: Middleware<{ wanted: boolean }> = async function note(_, next) {
    seen.push('before')
    await next()
    seen.push('after')
  }
  for (const wanted of [true, false])
    for (const holds of [
      (context: { wanted: boolean }) => context.wanted,
      async (context: { wanted: boolean }) => context.wanted,
    ]) {
      seen.length = 0
      await compose([when(holds, note)])({ wanted }, async () => void seen.push('end'))
      t.same(seen, wanted ? ['before', 'end', 'after'] : ['end'])
    }
  t.equal(when(() => true, note).name, 'note', 'errors name what it is about')
})

await t.test('what goes wrong is about the middleware inside', async t => {
  const twice: Middleware<object> = async function twice(_, next) {
    await next()
    await next()
  }
  const run = compose([when(() => true, twice)])
  await t.rejects(run({}), { code: 'ERR_KOCI_NEXT_CALLED_TWICE', message: /^twice: / })
  const failing = compose([
    when(() => {
      throw new Error('in the predicate')
    }, twice),
  ])
  await t.rejects(failing({}), { message: 'in the predicate' })
})
