import t from 'tap'
import { createError } from '../../../lib/errors.ts'
import { Control } from '../../../lib/layer/control.ts'
import { outputSize } from '../../../lib/layer/native.ts'
import {
  RingFollower,
  RingReader,
  RingWriter,
  SlotSums,
  type Verdict,
} from '../../../lib/layer/ring.ts'
import { breakRing, makeRing, stopRing } from '../../../lib/layer/ring-memory.ts'

const subject = 'layer x'
const failure: Verdict = {
  error: createError('BAD_COMPRESSION', { subject, format: 'gzip', reason: 'bad' }).toJSON(),
  complete: false,
}

function read(
  memory: SharedArrayBuffer,
  index: number,
  control = new Control(),
): { bytes: Buffer; verdict: Verdict } {
  const chunks: Buffer[] = []
  const verdict = new RingReader(memory).read(index, control, subject, chunk =>
    chunks.push(Buffer.from(chunk)),
  )
  return { bytes: Buffer.concat(chunks), verdict }
}

await t.test('bytes and verdicts come out as they went in, layer by layer', async t => {
  const memory = makeRing(8 * outputSize)
  const writer = new RingWriter(memory)
  // many times around
  for (let index = 0; index < 40; index += 1) {
    writer.begin(index, new Control(), subject)
    const large = Buffer.alloc(2 * outputSize + 17, index + 1)
    writer.write(large)
    const { bytes } = writer.room()
    t.equal(writer.room().bytes, bytes, 'the same room until something is in it')
    bytes.fill(0xff, 0, 5)
    writer.write(bytes.subarray(0, 5))
    const verdict = index % 2 === 0 ? { bytes: index } : failure
    writer.end(verdict)
    const expected = Buffer.concat([large, Buffer.alloc(5, 0xff)])
    const found = read(memory, index)
    t.ok(found.bytes.equals(expected))
    t.strictSame(found.verdict, verdict)
  }
})

await t.test('what nobody wants any more is skipped', async t => {
  const memory = makeRing(16 * outputSize)
  const writer = new RingWriter(memory)
  const dropped = new Control()
  writer.begin(0, dropped, subject)
  writer.write(Buffer.from('zero'))
  dropped.abort()
  writer.end({ bytes: 4 })
  writer.begin(1, new Control(), subject)
  writer.write(Buffer.from('one'))
  writer.end({ bytes: 3 })
  writer.begin(5, new Control(), subject)
  writer.write(Buffer.from('five'))
  writer.end({ bytes: 4 })
  t.equal(read(memory, 5).bytes.toString(), 'five')
})

await t.test('an error of the sink leaves the rest to be skipped', async t => {
  const memory = makeRing(16 * outputSize)
  const writer = new RingWriter(memory)
  for (const index of [0, 1]) {
    writer.begin(index, new Control(), subject)
    writer.write(Buffer.from('first'))
    writer.write(Buffer.from(`second ${index}`))
    writer.end({ bytes: 1 })
  }
  t.throws(() =>
    new RingReader(memory).read(0, new Control(), subject, () => {
      throw createError('CONSUMED', { subject })
    }),
  )
  t.equal(read(memory, 1).bytes.toString(), 'firstsecond 1')
})

await t.test(
  'a full ring waits for room, an empty one for bytes, neither after an abort',
  async t => {
    const memory = makeRing(2 * outputSize)
    const writer = new RingWriter(memory)
    const control = new Control()
    writer.begin(0, control, subject)
    writer.write(Buffer.alloc(2 * outputSize))
    control.abort()
    t.throws(() => writer.room(), { code: 'ERR_KOCI_ABORTED' })
    writer.end({ bytes: 1 }) // says nothing
    t.throws(() => read(memory, 0, control), { code: 'ERR_KOCI_ABORTED' })
    t.throws(() => read(makeRing(0), 0, control), { code: 'ERR_KOCI_ABORTED' })
  },
)

await t.test('stopped, it ends both sides; without a writer, the reader', async t => {
  const stopped = makeRing(2 * outputSize)
  const writer = new RingWriter(stopped)
  writer.begin(0, new Control(), subject)
  writer.write(Buffer.alloc(2 * outputSize))
  stopRing(stopped)
  t.ok(writer.isStopped)
  t.throws(() => writer.room(), { code: 'ERR_KOCI_ABORTED' })
  writer.end({ bytes: 1 })
  t.throws(() => read(stopped, 0), { code: 'ERR_KOCI_ABORTED' })

  const broken = makeRing(4 * outputSize)
  const last = new RingWriter(broken)
  last.begin(0, new Control(), subject)
  last.end({ bytes: 0 })
  breakRing(broken)
  stopRing(broken)
  t.strictSame(read(broken, 0).verdict, { bytes: 0 }, 'what was complete still counts')
  t.throws(() => read(broken, 1), { code: 'ERR_KOCI_WORKER_DIED' })
})

await t.test('who follows sees everything once, and holds up who fills', async t => {
  const memory = makeRing(4 * outputSize, 'looks')
  const writer = new RingWriter(memory)
  const control = new Control()
  const seen: string[] = []
  for (const index of [0, 1]) {
    writer.begin(index, control, subject)
    writer.write(Buffer.from(`bytes of ${index}`))
    writer.end({ bytes: 1 })
    read(memory, index)
  }
  control.abort()
  t.throws(
    () => writer.room(),
    { code: 'ERR_KOCI_ABORTED' },
    'both were read, neither was seen',
  )
  new RingFollower(memory).follow((index, chunk) => {
    seen.push(`${index} ${chunk?.toString() ?? 'ends'}`)
    if (seen.length === 4) stopRing(memory)
  })
  t.strictSame(seen, ['0 bytes of 0', '0 ends', '1 bytes of 1', '1 ends'])
  new RingFollower(memory).follow(() => t.fail('the ring was left'))
})

await t.test(
  'sums come with the slots that they were left with, and the reader after them',
  async t => {
    const memory = makeRing(4 * outputSize, 'sums')
    const writer = new RingWriter(memory)
    const control = new Control()
    const sums = SlotSums.of(memory) as SlotSums
    t.equal(SlotSums.of(makeRing(4 * outputSize, 'looks')), undefined)
    writer.begin(0, control, subject)
    for (const text of ['none', 'one', 'unknown', 'two']) writer.write(Buffer.from(text))
    const follower = new RingFollower(memory)
    const sum = (text: string): Buffer => Buffer.alloc(32, text)
    let seen = 0
    follower.follow((_, chunk) => {
      const text = chunk?.toString()
      if (text === 'one') follower.leaveSum(sum('1'))
      if (text === 'unknown') follower.leaveSum(undefined)
      if (text === 'two') {
        follower.leaveSum(sum('2'))
        follower.leaveSum(sum('3'))
      }
      seen += 1
      // not yet for the reader: this one is still being seen
      if (seen === 4) stopRing(memory)
    })
    const found: string[] = []
    const reading = (): unknown =>
      new RingReader(memory).read(0, control, subject, chunk => {
        sums.enter(chunk)
        const first = sums.next()
        found.push(
          `${chunk.toString()} ${first?.toString('latin1', 0, 1)} ${sums.next()?.toString('latin1', 0, 1)}`,
        )
      })
    t.throws(reading, { code: 'ERR_KOCI_ABORTED' })
    t.strictSame(found, [
      'none undefined undefined',
      'one 1 undefined',
      'unknown undefined undefined',
      'two 2 3',
    ])
  },
)
