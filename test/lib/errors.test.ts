import { readFileSync } from 'node:fs'
import { glob } from 'node:fs/promises'
import path from 'node:path'
import t from 'tap'
import { errorDocs } from '../../docs/generate-errors.ts'
import { errorTable } from '../../lib/error-table.ts'
import * as errors from '../../lib/errors.ts'

const { createError, isError, reviveError, wrapError } = errors
const root = path.resolve(import.meta.dirname, '../..')

await t.test('class, code, message, details and cause', async t => {
  const cause = Object.assign(new RangeError('no space left'), {
    code: 'ENOSPC',
    syscall: 'write',
  })
  const error = createError(
    'DIGEST_MISMATCH',
    { subject: 'blob', found: 'sha256:a', expected: 'sha256:b' },
    cause,
  )
  t.match(error, {
    name: 'IntegrityError',
    code: 'ERR_KOCI_DIGEST_MISMATCH',
    message: 'blob: digest mismatch: found sha256:a, expected sha256:b',
    details: { found: 'sha256:a' },
  })
  t.equal(error.cause, cause)
  t.ok(error instanceof errors.IntegrityError)
  t.match(error.stack, /^IntegrityError: blob/)
})

await t.test('a message is one line, whatever the names in it', async t => {
  const subject = Buffer.from([0x61, 0xff, 0x0a, 0x1b])
  const error = createError('FILE_CHANGED', { subject })
  t.match(error.message, /^a\\xff\\n\\x1b: changed/)
})

await t.test('an error survives the way between threads', async t => {
  const cause = Object.assign(new RangeError('no'), { code: 'EACCES', syscall: 'openat' })
  const error = createError('IO', { subject: Buffer.from('x'), reason: 'no', at: 7n }, cause)
  const revived = reviveError(structuredClone(error.toJSON()))
  t.ok(revived instanceof errors.SystemError)
  t.same(revived.toJSON(), error.toJSON())
  t.match(revived.cause, { code: 'EACCES', syscall: 'openat' })
})

await t.test("wrapping keeps what is koci's and names a subject for the rest", async t => {
  const own = createError('ABORTED', { subject: 'x' })
  t.equal(wrapError(own, 'y'), own)
  const system = Object.assign(new RangeError('EIO: i/o error'), { code: 'EIO' })
  t.match(wrapError(system, 'y'), {
    code: 'ERR_KOCI_IO',
    message: 'y: EIO: i/o error',
    cause: system,
  })
  t.match(wrapError('just text', 'y'), { code: 'ERR_KOCI_IO', message: 'y: just text' })
  t.ok(isError(own, 'ABORTED'))
  t.notOk(isError(own, 'IO'))
  t.notOk(isError(system, 'IO'))
})

await t.test('the table is well-formed', async t => {
  for (const [name, [className, message, docs]] of Object.entries(errorTable)) {
    t.match(name, /^[A-Z][A-Z0-9_]+$/)
    const constructors = new Map<string, unknown>(Object.entries(errors))
    t.type(constructors.get(className), 'function', `${name}: ${className} exists`)
    t.match(message, /^\{subject\}[: ]/, `${name} starts with its subject`)
    t.notMatch(message, /\.$/, `${name} ends without a full stop`)
    t.match(docs, /^[A-Z].*\.$/, `${name} is documented by a sentence`)
  }
})

await t.test('every code is asserted by a test', async t => {
  const own = import.meta.filename
  const tests = (await Array.fromAsync(glob('test/**/*.test.ts', { cwd: root })))
    .map(file => path.join(root, file))
    .filter(file => file !== own)
    .map(file => readFileSync(file, 'utf8'))
  for (const name of Object.keys(errorTable)) {
    const mention = new RegExp(`\\b(ERR_KOCI_)?${name}\\b`)
    t.ok(
      tests.some(text => mention.test(text)),
      name,
    )
  }
})

await t.test('docs/errors.md is what the table says: npm run docs', async t => {
  t.equal(readFileSync(path.join(root, 'docs/errors.md'), 'utf8'), errorDocs())
})
