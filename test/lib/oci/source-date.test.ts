import t from 'tap'
import { creationTime, formatTime, parseSourceDate } from '../../../lib/oci/source-date.ts'

await t.test('SOURCE_DATE_EPOCH is seconds; empty is unset', async t => {
  t.equal(parseSourceDate(undefined), undefined)
  t.equal(parseSourceDate(''), undefined)
  t.equal(parseSourceDate('0'), 0)
  t.equal(parseSourceDate('1700000000'), 1_700_000_000)
  t.equal(parseSourceDate('-1'), -1)
  t.equal(creationTime(parseSourceDate('253402300799')), '9999-12-31T23:59:59Z')
})

for (const text of [
  'x',
  '1.5',
  ' 1',
  '1\n',
  '0x10',
  '1e3',
  '253402300800',
  '9'.repeat(400),
  'NaN',
  '-',
])
  await t.test(
    `SOURCE_DATE_EPOCH=${JSON.stringify(text.slice(0, 20))} is an error`,
    async t => {
      t.throws(() => parseSourceDate(text), { code: 'ERR_KOCI_INVALID_OPTION' })
    },
  )

await t.test('Times are written as Go writes them', async t => {
  t.equal(formatTime(new Date(0)), '1970-01-01T00:00:00Z')
  t.equal(formatTime(new Date(1_700_000_000_120)), '2023-11-14T22:13:20.12Z')
  t.equal(formatTime(new Date(1_700_000_000_100)), '2023-11-14T22:13:20.1Z')
  t.equal(creationTime(undefined, new Date(5000)), '1970-01-01T00:00:05Z')
  t.equal(creationTime(7, new Date(5000)), '1970-01-01T00:00:07Z')
})
