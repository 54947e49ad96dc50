// Run as a process of its own: a lister in code says that two million paths were deleted, in no order. Arguments: the module
// that koci is, a layout with a tag, a bundle to make.
import assert from 'node:assert/strict'

const [koci = '', image = '', bundle = ''] = process.argv.slice(2)
const { change, filter, Koci, listDelta } = await import(koci)
const count = 2_000_000

const lister = {
  name: 'lister',
  delta(ctx) {
    ctx.changes = (function* () {
      for (let at = 0; at < count; at++) {
        // prime to the count, so that each number comes once
        const number = (at * 1_234_577) % count
        const name = String(number).padStart(7, '0')
        yield change('D', Buffer.from(`some/directory/${name.slice(0, 4)}/file ${name}`))
      }
    })()
  },
}
const some = {
  name: 'some',
  async delta(ctx, next) {
    await next()
    ctx.changes = filter(ctx.changes, ({ path }) => path.endsWith('00000'))
  },
}

const rootless = process.geteuid() !== 0
await new Koci().unpack({ image, bundle, rootless })
const changes = await listDelta(new Koci().use(lister), { bundle })
assert.equal(changes.length, count)
let last = Buffer.alloc(0)
for (const { rawPath } of changes) {
  assert.ok(Buffer.compare(last, rawPath) < 0, rawPath.toString())
  last = rawPath
}
const packed = await new Koci().use(some).use(lister).repack({ image, bundle })
assert.equal(packed.changes.length, count / 100_000)
