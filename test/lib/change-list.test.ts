// Lists of changes, short and long: the same list comes of both.
import assert from 'node:assert/strict'
import { readdirSync, readlinkSync } from 'node:fs'
import * as fc from 'fast-check'
import t from 'tap'
import { ChangeList, ChangeSorter } from '../../lib/change-list.ts'
import { change, type Change } from '../../lib/change.ts'
import { differential } from '../support/differential.ts'

const raw = (text: string): Buffer => Buffer.from(text, 'latin1')
const modified = (text: string): Change => change('M', raw(text))

/** How many nameless files are open in a directory. */
function openFiles(directory: string): number {
  return readdirSync('/proc/self/fd').filter(fd => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`).startsWith(`${directory}/`)
    } catch {
      return false
    }
  }).length
}

/** Temporary files go to a directory of this test's own. */
function ownTmpdir(t: { testdir(): string; teardown(run: () => void): void }): string {
  const directory = t.testdir()
  const { TMPDIR } = process.env
  process.env['TMPDIR'] = directory
  t.teardown(() => {
    if (TMPDIR === undefined) delete process.env['TMPDIR']
    else process.env['TMPDIR'] = TMPDIR
  })
  return directory
}

/** What is expected, the plain way. */
function reference(changes: readonly Change[]): Change[] {
  const byPath = new Map<string, Change>()
  for (const each of changes) {
    const key = each.rawPath.toString('latin1')
    const isOpaque = each.opaque === true || byPath.get(key)?.opaque === true
    byPath.set(key, isOpaque ? { ...each, opaque: true } : each)
  }
  return [...byPath.values()].sort((a, b) => Buffer.compare(a.rawPath, b.rawPath))
}

const rawPath = fc
  .array(fc.oneof(fc.constantFrom(0, 0x2e, 0x2f, 0x61, 0xff), fc.nat(255)), { maxLength: 4 })
  .map(bytes => Buffer.from(bytes))
const anyChange = fc
  .tuple(
    fc.constantFrom('A' as const, 'M' as const, 'D' as const),
    rawPath,
    fc.option(fc.array(rawPath, { maxLength: 3 }), { nil: undefined, freq: 4 }),
    fc.boolean(),
    fc.boolean(),
  )
  .map(([kind, path, aliasOf, opaque, leaf]) => ({
    ...change(kind, path, aliasOf),
    ...(opaque && { opaque }),
    ...(leaf && { leaf }),
  }))

await t.test('lists of any length are sorted, with each path once', async t => {
  ownTmpdir(t)
  const limits = fc.record({
    maxChanges: fc.constantFrom(0, 1, 7, 1000),
    runSize: fc.constantFrom(0, 40, 200, 10_000),
  })
  const property = fc.asyncProperty(
    fc.array(anyChange, { maxLength: 200 }),
    limits,
    fc.boolean(),
    async (changes, limits, isAsync) => {
      using list = await ChangeList.from(isAsync ? inTurns(changes) : changes, limits)
      const expected = reference(changes)
      assert.deepEqual([...list], expected)
      assert.deepEqual([...list], expected, 'it can be read again')
      assert.equal(list.length, expected.length)
      const hasAliases = expected.some(({ aliasOf }) => aliasOf !== undefined)
      assert.equal(list.hasAliases, hasAliases)
      using deleted = list.filter(({ kind }) => kind === 'D')
      const left = expected.filter(({ kind }) => kind === 'D')
      assert.deepEqual([...deleted], left)
      assert.equal(deleted.length, left.length)
    },
  )
  await differential(property, 60)
})

async function* inTurns<T>(items: Iterable<T>): AsyncGenerator<T> {
  for (const each of items) {
    await Promise.resolve()
    yield each
  }
}

await t.test('runs of runs are merged, and the last one counts', async t => {
  ownTmpdir(t)
  const sorter = new ChangeSorter({ maxChanges: 0, runSize: 0 })
  const count = 64 * 64 + 100
  for (let at = 0; at < count; at++)
    sorter.add(change(at < 4000 ? 'A' : 'M', raw(`p${at % 1000}`)))
  using list = sorter.finish()
  const expected = Array.from({ length: 1000 }, (_, at) => `p${at}`).sort()
  t.same(
    list.map(({ path }) => path),
    expected,
  )
  const kinds = new Map(list.map(({ path, kind }) => [path, kind]))
  t.equal(kinds.get('p195'), 'M')
  t.equal(kinds.get('p196'), 'A')
})

await t.test('paths longer than what is read at once', async t => {
  ownTmpdir(t)
  const long = (fill: string): Change => modified(fill.repeat(200_000))
  const changes = [long('b'), modified('c'), long('a'), long('b'), modified('a')]
  using list = await ChangeList.from(changes, { maxChanges: 2, runSize: 30 })
  t.same(
    list.map(({ path }) => [path[0], path.length]),
    [
      ['a', 1],
      ['a', 200_000],
      ['b', 200_000],
      ['c', 1],
    ],
  )
})

await t.test('short lists open no file; long ones have one, without a name', async t => {
  const directory = ownTmpdir(t)
  using short = await ChangeList.from([modified('b'), modified('a')])
  t.equal(short.length, 2)
  t.equal(openFiles(directory), 0)
  const long = await ChangeList.from([modified('b'), modified('a')], { maxChanges: 1 })
  t.equal(openFiles(directory), 1)
  t.same(readdirSync(directory), [])
  t.equal(await ChangeList.from(long), long, 'it is not drained twice')
  long[Symbol.dispose]()
  long[Symbol.dispose]()
  t.equal(openFiles(directory), 0)
  const closed = { code: 'ERR_KOCI_IO', message: /was closed/ }
  t.throws(() => [...long], closed, 'somebody else may have its descriptor by now')
})

await t.test('a list that fails, or is aborted, leaves nothing open', async t => {
  const directory = ownTmpdir(t)
  const failing = function* (): Generator<Change> {
    yield modified('a')
    yield modified('b')
    throw new Error('no luck')
  }
  await t.rejects(ChangeList.from(failing(), { maxChanges: 1 }), { message: 'no luck' })
  const controller = new AbortController()
  const endless = function* (): Generator<Change> {
    for (let at = 0; ; at++) {
      if (at === 10_000) controller.abort()
      yield modified(`${at}`)
    }
  }
  const { signal } = controller
  await t.rejects(ChangeList.from(endless(), { maxChanges: 5000, signal }), {
    code: 'ERR_KOCI_ABORTED',
  })
  t.equal(openFiles(directory), 0)
})

await t.test('without a directory for temporary files there are no long lists', async t => {
  process.env['TMPDIR'] = `${ownTmpdir(t)}/none`
  const failed = { code: 'ERR_KOCI_IO', message: /none/ }
  await t.rejects(ChangeList.from([modified('a')], { maxChanges: 0 }), failed)
  t.equal((await ChangeList.from([modified('a')])).length, 1)
})
