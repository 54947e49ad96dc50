import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { compose, type Middleware } from '../../lib/compose.ts'

type Log = string[]

function ring(name: string): Middleware<Log> {
  return async (log, next) => {
    log.push(`${name}>`)
    await next()
    log.push(`<${name}`)
  }
}

await t.test('the first is outermost', async t => {
  const log: Log = []
  await compose([ring('a'), ring('b')])(log, async () => void log.push('end'))
  t.strictSame(log, ['a>', 'b>', 'end', '<b', '<a'])
})

await t.test('an empty chain is its end', async t => {
  const log: Log = []
  await compose<Log>([])(log)
  await compose<Log>([])(log, async () => void log.push('end'))
  t.strictSame(log, ['end'])
})

await t.test('what it makes is middleware', async t => {
  const log: Log = []
  await compose([ring('a'), compose([ring('b'), ring('c')]), ring('d')])(log)
  t.strictSame(log, ['a>', 'b>', 'c>', 'd>', '<d', '<c', '<b', '<a'])
})

await t.test('a composed chain can run many times, also at once', async t => {
  const chain = compose([ring('a'), async (log: Log) => void (await sleep(1), log.push('x'))])
  const logs: Log[] = [[], [], []]
  await Promise.all(logs.map(log => chain(log)))
  for (const log of logs) t.strictSame(log, ['a>', 'x', '<a'])
})

await t.test('a middleware that does not call next() ends the chain', async t => {
  const log: Log = []
  await compose([ring('a'), () => {}, ring('c')])(log)
  t.strictSame(log, ['a>', '<a'])
})

await t.test('a synchronous throw and a rejection travel outwards alike', async t => {
  const boom = new RangeError('boom')
  for (const inner of [
    () => Promise.reject(boom),
    () => {
      throw boom
    },
  ]) {
    const log: Log = []
    await t.rejects(compose([ring('a'), inner as Middleware<Log>])(log), boom)
    t.strictSame(log, ['a>'])
  }
})

await t.test('a middleware may catch what happened further in', async t => {
  const log: Log = []
  const guard: Middleware<Log> = async (log, next) => {
    await next().catch(() => log.push('caught'))
  }
  await compose([guard, () => Promise.reject(new RangeError())])(log)
  t.strictSame(log, ['caught'])
})

const twice: [string, Middleware<Log>][] = [
  [
    'awaited',
    async function twice(_, next) {
      await next()
      await next()
    },
  ],
  [
    'not awaited',
    async function twice(_, next) {
      await next()
      void next()
    },
  ],
  [
    'caught',
    async function twice(_, next) {
      await next()
      await next().catch(() => {})
    },
  ],
]
for (const [name, middleware] of twice)
  await t.test(
    `a second next() is an error that names the middleware, even ${name}`,
    async t => {
      const log: Log = []
      await t.rejects(compose([middleware, ring('b')], { step: 'layer' })(log), {
        code: 'ERR_KOCI_NEXT_CALLED_TWICE',
        message: /^twice: .*step layer/,
      })
      t.strictSame(log, ['b>', '<b'], 'downstream ran once')
    },
  )

await t.test('a forgotten await is an error, told after downstream has settled', async t => {
  const log: Log = []
  let aborted: unknown
  const chain = compose<Log>(
    [
      function hasty(_, next) {
        void next()
      },
      async log => {
        await sleep(20)
        log.push('settled')
      },
    ],
    { step: 'unpack', abort: reason => (aborted = reason) },
  )
  await t.rejects(chain(log), {
    code: 'ERR_KOCI_NEXT_NOT_AWAITED',
    message: /^hasty: .*step unpack/,
  })
  t.strictSame(log, ['settled'])
  t.match(aborted, { code: 'ERR_KOCI_NEXT_NOT_AWAITED' }, 'the run was aborted at once')
})

await t.test('a throw while downstream runs waits for it to settle', async t => {
  const log: Log = []
  const chain = compose<Log>([
    (_, next) => {
      void next()
      throw new RangeError('mine')
    },
    async log => {
      await sleep(20)
      log.push('settled')
    },
  ])
  await t.rejects(chain(log), { message: 'mine' })
  t.strictSame(log, ['settled'])
})

await t.test('next() after the end is refused and runs nothing', async t => {
  let late: (() => Promise<void>) | undefined
  let runs = 0
  await compose<Log>([
    (_, next) => {
      late = next
    },
    () => {
      runs += 1
    },
  ])([])
  await t.rejects(late?.() ?? Promise.resolve(), { code: 'ERR_KOCI_NEXT_NOT_AWAITED' })
  t.equal(runs, 0)
})

await t.test('members without a name are called by their place', async t => {
  await t.rejects(
    compose<Log>([
      ring('a'),
      (() => async (_: Log, next: () => Promise<void>) => {
        await next()
        await next()
      })(),
    ])([]),
    {
      message: /^middleware #2: /,
    },
  )
})

for (const wrong of [undefined, null, 'cache', 7, {}, { name: 'x' }])
  await t.test(`${JSON.stringify(wrong)} is refused at once`, async t => {
    t.throws(() => compose([wrong as unknown as Middleware<Log>]), {
      name: 'UsageError',
      code: 'ERR_KOCI_INVALID_MIDDLEWARE',
      message: /^middleware #1: /,
    })
  })

await t.test('a thousand members deep', async t => {
  let count = 0
  const members = Array.from({ length: 1000 }, (): Middleware<Log> => (_, next) => {
    count += 1
    return next()
  })
  await compose(members)([])
  t.equal(count, 1000)
})

await t.test('a failure further in is not lost because nobody waited for it', async t => {
  const boom = new RangeError('boom')
  const chain = compose<Log>(
    [
      async function hasty(_, next) {
        void next()
        await sleep(20)
      },
      () => Promise.reject(boom),
    ],
    { step: 'mount' },
  )
  await t.rejects(chain([]), {
    code: 'ERR_KOCI_NEXT_NOT_AWAITED',
    message: /^hasty: .*step mount/,
  })
})

const waits: [how: string, middleware: Middleware<Log>][] = [
  [
    'await',
    async (_, next) => {
      await next()
    },
  ],
  ['return, async', async (_, next) => next()],
  ['return', (_, next) => next()],
  ['then', (_, next) => next().then(() => {})],
  ['catch', (_, next) => next().catch(() => {})],
  ['finally', (_, next) => next().finally(() => {})],
  [
    'all',
    async (_, next) => {
      await Promise.all([next(), sleep(1)])
    },
  ],
  [
    'later',
    async (_, next) => {
      const done = next()
      await sleep(5)
      await done
    },
  ],
]
for (const [how, middleware] of waits)
  await t.test(`waiting by ${how} is waiting`, async t => {
    const log: Log = []
    await compose([middleware, async log => void (await sleep(1), log.push('x'))])(log)
    t.strictSame(log, ['x'])
  })
