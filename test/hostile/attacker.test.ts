// Another process exchanges a directory of the rootfs and a symlink to a canary tree, thousands of times a second, while
// koci unpacks, packs, refreshes, and reads /etc/passwd. Whatever koci makes of it, it stays inside, and says what it is.
// KOCI_ATTACK_SECONDS: how long each attack lasts.
import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import {
  closeSync,
  constants,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import path from 'node:path'
import { createInterface } from 'node:readline'
import { gunzipSync } from 'node:zlib'
import t from 'tap'
import { resolveUser } from '../../lib/bundle/users.ts'
import { KociError } from '../../lib/errors.ts'
import { withTree } from '../../lib/fs/open-tree.ts'
import { Koci } from '../../lib/index.ts'
import { mtree } from '../../middleware/mtree/index.ts'
import { makeCanary, secret, type Canary } from '../support/canary.ts'
import { openDescriptors } from '../support/descriptors.ts'
import { makeImage } from '../support/image.ts'
import { isRoot, temporary } from '../support/peers.ts'
import { xattrRecord, type TarMember } from '../support/tar-builder.ts'

const { O_DIRECTORY, O_NOFOLLOW, O_RDONLY } = constants
const seconds = Number(process.env['KOCI_ATTACK_SECONDS'] ?? 5)
/** So much longer, in milliseconds, if nothing else was seen until then; the attacker gives up after a minute. */
const patience = 45_000
const program = path.join(import.meta.dirname, '../support/attacker.ts')
const rootless = !isRoot
const files = Array.from({ length: 6 }, (_, at) => `f${at}`)
const subdirectories = ['sub', 'sub/deep', 'hidden', 'gone']

t.setTimeout((5 * seconds + 90) * 1000 + 5 * patience)

/** Everything that an applier does, beneath `d`, where the canary tree has the same names. */
const layers: TarMember[][] = [
  [
    { name: 'd/', type: 'directory' },
    ...subdirectories.map((name): TarMember => ({
      name: `d/${name}/`,
      type: 'directory',
      mode: 0o755,
    })),
    ...['', ...subdirectories.map(name => `${name}/`)].flatMap(below =>
      files.map((name): TarMember => ({ name: `d/${below}${name}`, body: `old ${name}` })),
    ),
    { name: 'etc/passwd', body: 'app:x:1000:1000::/home/app:/bin/sh\n' },
  ],
  ['', 'sub/', 'sub/deep/'].flatMap(below =>
    files.flatMap((name, at): TarMember[] => [
      {
        name: `d/${below}${name}`,
        body: 'new',
        mode: 0o4777,
        pax: [xattrRecord('user.k', 'v')],
      },
      { name: `d/${below}h${at}`, type: 'hardlink', linkname: `d/${below}${name}` },
      { name: `d/${below}s${at}`, type: 'symlink', linkname: name, mtime: at },
      { name: `d/${below}p${at}`, type: 'fifo', mode: 0o666 },
    ]),
  ),
  [
    { name: 'd/.wh.gone' },
    { name: 'd/hidden/.wh..wh..opq' },
    ...files.map((name): TarMember => ({ name: `d/sub/.wh.${name}` })),
    ...subdirectories.map((name): TarMember => ({
      name: `d/${name}/`,
      type: 'directory',
      mode: 0o700,
      mtime: 7,
      pax: [xattrRecord('user.d', 'v')],
    })),
    ...files.map((name): TarMember => ({ name: `d/${name}`, type: 'directory', mode: 0o700 })),
    { name: 'd/', type: 'directory', mode: 0o711, mtime: 5 },
  ],
]

interface Test {
  teardown(undo: () => unknown): void
  comment(text: string): void
  strictSame(found: unknown, wanted: unknown, text: string): unknown
  ok(found: unknown, text: string): unknown
}

interface Attacked {
  readonly base: string
  readonly canary: Canary
  readonly image: string
  readonly bundle: string
  readonly rootfs: string
}

/** Repeats something while a name of the rootfs is attacked; counts how it ended, and looks what became of the canary. */
async function underAttack(
  t: Test,
  { canary, rootfs }: Attacked,
  name: string,
  round: (index: number) => unknown,
  target: string = canary.directory,
): Promise<Map<string, number>> {
  const before = canary.snapshot()
  const descriptors = openDescriptors()
  const attacker = startAttacker(t, [rootfs, name, 'evil', target])
  const ended = lastLine(attacker)
  const closed = once(attacker, 'close')
  await once(attacker.stdout ?? attacker, 'data')
  const outcomes = new Map<string, number>()
  const end = Date.now() + seconds * 1000
  // on a machine that is busy a round takes seconds, and few of them get through
  const isEnough = (rounds: number): boolean =>
    Date.now() >= end && ((rounds > 1 && outcomes.has('done')) || Date.now() >= end + patience)
  for (let index = 0; !isEnough(index); index++) {
    const outcome = await outcomeOf(() => round(index))
    outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1)
  }
  attacker.stdin?.end()
  const exchanges = Number(await ended)
  await closed
  t.comment(`${exchanges} exchanges; ${JSON.stringify(Object.fromEntries(outcomes))}`)
  t.ok(exchanges > 100 * seconds, `${exchanges} exchanges are an attack`)
  t.strictSame(canary.snapshot(), before, 'the canary tree is as it was')
  t.strictSame(openDescriptors(), descriptors, 'nothing is left open')
  return outcomes
}

function startAttacker(t: Test, args: readonly string[]): ChildProcess {
  const attacker = spawn(process.execPath, [program, ...args, String(seconds + 60)], {
    stdio: ['pipe', 'pipe', 'inherit'],
    env: { ...process.env, NODE_OPTIONS: '' },
  })
  t.teardown(() => attacker.kill('SIGKILL'))
  return attacker
}

async function lastLine(child: ChildProcess): Promise<string> {
  let last = ''
  if (!child.stdout) return last
  for await (const line of createInterface(child.stdout)) last = line
  return last
}

/** `done`, or the code of the error, which has to be one of koci's: anything else is thrown. */
async function outcomeOf(run: () => unknown): Promise<string> {
  try {
    await run()
    return 'done'
  } catch (error) {
    if (!(error instanceof KociError)) throw error
    return error.code
  }
}

async function setUp(t: Test): Promise<Attacked> {
  const base = temporary(t, 'attack')
  const canary = makeCanary(path.join(base, 'canary'), subdirectories, [
    ...files,
    'passwd',
    'group',
  ])
  const config = { User: 'app' }
  const image = await makeImage(path.join(base, 'images'), 'test', { layers, config })
  const bundle = path.join(base, 'bundle')
  return { base, canary, image, bundle, rootfs: path.join(bundle, 'rootfs') }
}

/** Away from the attacker first, who could put something into a directory that is being removed. */
function removeBundle({ base, bundle }: Attacked): void {
  const trash = path.join(base, 'trash')
  mkdirSync(bundle, { recursive: true })
  renameSync(bundle, trash)
  rmSync(trash, { recursive: true, force: true, maxRetries: 3 })
}

await t.test('while layers are applied', async t => {
  const attacked = await setUp(t)
  const { image, bundle } = attacked
  const app = new Koci().use(mtree())
  const outcomes = await underAttack(t, attacked, 'd', async () => {
    removeBundle(attacked)
    await app.unpack({ image, bundle, rootless })
  })
  t.ok([...outcomes.values()].reduce((sum, count) => sum + count) > 1, 'more than one round')
})

for (const refresh of [false, true])
  await t.test(
    `while changes are packed${refresh ? ', and the bundle refreshed' : ''}`,
    async t => {
      const attacked = await setUp(t)
      const { base, image, bundle, rootfs } = attacked
      const app = new Koci().use(mtree())
      await app.unpack({ image, bundle, rootless })
      const outcomes = await underAttack(t, attacked, 'd', async index => {
        writeInReal(rootfs, ['d', 'evil'], `new-${index}`)
        const next = `${base}/images:next`
        const { image } = await app.repack({ image: next, bundle, refresh })
        for (const { descriptor } of image.layers.slice(layers.length)) {
          const hex = descriptor.digest.slice('sha256:'.length)
          const layer = gunzipSync(readFileSync(path.join(base, 'images/blobs/sha256', hex)))
          if (layer.includes(secret)) throw new Error(`round ${index}: the canary was packed`)
        }
      })
      t.ok(outcomes.has('done'), 'some rounds were packed')
    },
  )

for (const name of ['etc', 'etc/passwd'])
  await t.test(`while users are looked up, and ${name} is exchanged`, async t => {
    const attacked = await setUp(t)
    const { canary, image, bundle, rootfs } = attacked
    await new Koci().unpack({ image, bundle, rootless })
    const target = name === 'etc' ? canary.directory : path.join(canary.directory, 'passwd')
    const outcomes = await underAttack(
      t,
      attacked,
      name,
      async () => {
        for (let times = 0; times < 20; times++) {
          const { uid, gid } = await withTree(rootfs, root => resolveUser('app', root))
          if (uid !== 1000 || gid !== 1000) throw new Error(`${uid}:${gid} is the canary's`)
        }
      },
      target,
    )
    t.ok(outcomes.has('done'), 'some look-ups found the user')
  })

/** Writes a file into that of the two names which is a directory just then. */
function writeInReal(rootfs: string, names: readonly string[], file: string): void {
  for (const name of names) {
    try {
      const fd = openSync(path.join(rootfs, name), O_RDONLY | O_DIRECTORY | O_NOFOLLOW)
      writeFileSync(`/proc/self/fd/${fd}/${file}`, file)
      closeSync(fd)
      return
    } catch (error) {
      if (!['ELOOP', 'ENOTDIR'].includes((error as NodeJS.ErrnoException).code ?? ''))
        throw error
    }
  }
}
