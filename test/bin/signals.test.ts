import { execFileSync } from 'node:child_process'
import {
  closeSync,
  constants,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { writeFile } from 'node:fs/promises'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { tryLock, type Lock } from '../../lib/fs/lock.ts'
import { ImageLayout } from '../../lib/layout/image-layout.ts'
import { makeImage } from '../support/image.ts'
import { makeMemoryDir } from '../support/memory-dir.ts'
import { koci, type Outcome } from './run-koci.ts'

const rootless = process.geteuid?.() === 0 ? [] : ['--rootless']

/** A directory in memory: tens of thousands of files take minutes on a disk that others use, too. */
function place(t: Pick<Test, 'teardown'>): string {
  const directory = makeMemoryDir('koci-signals-')
  t.teardown(() => rmSync(directory, { recursive: true, force: true }))
  return directory
}

/** An image that takes long enough to unpack. */
const image: string = await makeImage(path.join(place(t), 'images'), 'slow', {
  layers: [
    Array.from({ length: 40_000 }, (_, at) => ({ name: `d${at % 100}/${at}`, body: 'x' })),
  ],
  compression: 'none',
})

/** Runs koci, and sends signals as soon as something is so. */
async function interrupt(
  args: readonly string[],
  cwd: string,
  isTime: () => boolean,
  signals: readonly NodeJS.Signals[],
): Promise<Outcome> {
  let sent: Promise<void> | undefined
  const outcome = await koci(args, {
    cwd,
    started: child => {
      sent = (async () => {
        while (child.exitCode === null && !isTime()) await sleep(5)
        for (const signal of signals) child.kill(signal)
      })()
    },
  })
  await sent
  return outcome
}

/** Interrupts an unpack into `bundle` as soon as it extracts. */
function interruptUnpack(
  cwd: string,
  bundle: string,
  signals: readonly NodeJS.Signals[],
): Promise<Outcome> {
  const args = ['unpack', ...rootless, '--image', image, bundle]
  return interrupt(args, cwd, () => existsSync(path.join(cwd, bundle, 'rootfs/d0')), signals)
}

for (const [signal, exit] of [
  ['SIGINT', 130],
  ['SIGTERM', 143],
] as const)
  await t.test(`${signal} leaves nothing of an unpack, and exits with ${exit}`, async t => {
    const cwd = place(t)
    const { code, stderr } = await interruptUnpack(cwd, 'deep/er/bundle', [signal])
    t.equal(code, exit)
    t.match(stderr, /^koci: [^\n]*aborted \[ERR_KOCI_ABORTED\]\n$/)
    t.same(readdirSync(cwd), [])
  })

await t.test('a bundle directory that was there is as it was after SIGINT', async t => {
  const cwd = place(t)
  mkdirSync(path.join(cwd, 'bundle'))
  writeFileSync(path.join(cwd, 'bundle/mine'), '')
  const { code } = await interruptUnpack(cwd, 'bundle', ['SIGINT'])
  t.equal(code, 130)
  t.same(readdirSync(path.join(cwd, 'bundle')), ['mine'])
})

await t.test('SIGINT during a repack leaves no tag and no half blob', async t => {
  const cwd = place(t)
  await makeImage(path.join(cwd, 'images'), 'a', { layers: [] })
  await koci(['unpack', ...rootless, '--image', 'images:a', 'bundle'], { cwd })
  for (let at = 0; at < 30_000; at++)
    writeFileSync(path.join(cwd, 'bundle/rootfs', String(at)), String(at))
  const before = readdirSync(path.join(cwd, 'images/blobs/sha256'))
  const isWriting = (): boolean =>
    readdirSync(path.join(cwd, 'images')).some(name => name.startsWith('.koci-'))
  const args = ['repack', '--image', 'images:b', 'bundle']
  const { code, stderr } = await interrupt(args, cwd, isWriting, ['SIGINT'])
  t.equal(code, 130)
  t.match(stderr, /\[ERR_KOCI_ABORTED\]\n$/)
  t.same(readdirSync(path.join(cwd, 'images/blobs/sha256')), before)
  t.same(readdirSync(path.join(cwd, 'images')).sort(), ['blobs', 'index.json', 'oci-layout'])
  await using layout = await ImageLayout.open(path.join(cwd, 'images'))
  t.same(
    (await layout.refs()).map(({ refName }) => refName),
    ['a'],
  )
  const again = await koci(['repack', '--image', 'images:b', 'bundle'], { cwd })
  t.equal(again.code, 0, 'the bundle is as it was')
})

const slow = `import { writeFileSync } from 'node:fs'
export default () => ({
  name: 'slow',
  recipe: false,
  async unpack(ctx, next) {
    ctx.defer(() => {
      writeFileSync('undoing', '')
      return new Promise(done => setTimeout(done, 50_000))
    })
    await next()
  },
})`

await t.test(
  'a second signal ends the program at once; a rerun mends what it left',
  async t => {
    // what is undone takes its time: it can't be over before the second signal comes
    const cwd = place(t)
    writeFileSync(path.join(cwd, 'slow.mjs'), slow)
    const unpack = ['unpack', ...rootless, '--image', image, 'bundle']
    let second: Promise<void> | undefined
    const { code, stderr } = await koci([...unpack, '--use', './slow.mjs'], {
      cwd,
      started: child => {
        const until = async (name: string): Promise<void> => {
          while (child.exitCode === null && !existsSync(path.join(cwd, name))) await sleep(5)
        }
        second = (async () => {
          await until('bundle/rootfs/d0')
          child.kill('SIGINT')
          await until('undoing')
          child.kill('SIGTERM')
        })()
      },
    })
    await second
    t.equal(code, 143)
    t.equal(stderr, '', 'it had no time to say that it was aborted')
    const again = await koci(unpack, { cwd })
    t.equal(again.code, 0, again.stderr)
    t.equal(readdirSync(path.join(cwd, 'bundle/rootfs')).length, 100)
  },
)

await t.test('SIGINT is heard while others keep the layout locked', async t => {
  const cwd = t.testdir()
  const images = path.join(cwd, 'images')
  await makeImage(images, 'a', { layers: [] })
  execFileSync('mkfifo', [path.join(cwd, 'layer')])
  const blobs = (): number => readdirSync(path.join(images, 'blobs/sha256')).length
  const before = blobs()
  let lock: Lock | undefined
  let feeding: Promise<void> | undefined
  const isWaiting = (): boolean => {
    // all but the tag is made: layer, config, manifest
    if (lock) return blobs() === before + 3
    if (!readdirSync(images).some(name => name.startsWith('.koci-'))) return false
    lock = tryLock(path.join(images, 'oci-layout'), { create: false })
    if (lock) feeding = writeFile(path.join(cwd, 'layer'), Buffer.alloc(1024))
    return false
  }
  const args = ['raw', 'add-layer', '--image', 'images:a', 'layer']
  const { code, stderr } = await interrupt(args, cwd, isWaiting, ['SIGINT'])
  // a writer waits for a reader: one that never came mustn't hold us up
  closeSync(openSync(path.join(cwd, 'layer'), constants.O_RDONLY | constants.O_NONBLOCK))
  await feeding
  lock?.release()
  t.equal(code, 130)
  t.match(stderr, /aborted \[ERR_KOCI_ABORTED\]\n$/)
  await using layout = await ImageLayout.open(images)
  t.equal((await layout.resolve('a')).layers.length, 0)
})
