// Runs hostile images through the real unpack, with things beside the rootfs that must not change, through every
// chain that makes a rootfs. One layer is also tried as two, cut at every place: what came from below is no less hostile.
import { execFileSync } from 'node:child_process'
import {
  chownSync,
  linkSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
  type BigIntStats,
} from 'node:fs'
import { createHash } from 'node:crypto'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { inspect } from 'node:util'
import type { Test } from 'tap'
import { overlayObstacle, unmount } from '../../lib/fs/mount.ts'
import { setXattr } from '../../lib/fs/xattr.ts'
import { AT_FDCWD, cstring, mknodat, S_IFIFO } from '../../lib/fs/libc.ts'
import { Koci, type UnpackOptions, type Warning } from '../../lib/index.ts'
import { printable } from '../../lib/text.ts'
import { defaultLimits, limits } from '../../middleware/limits/index.ts'
import { mtree } from '../../middleware/mtree/index.ts'
import { overlay } from '../../middleware/overlay/index.ts'
import { Control } from '../../lib/layer/control.ts'
import { extractBlob } from '../../lib/layer/extract.ts'
import { home, koci } from '../bin/run-koci.ts'
import { makeJob } from './extract.ts'
import { makeImage, type TestImage, type TestLayer } from './image.ts'
import { makeMemoryDir } from './memory-dir.ts'
import { snapshot } from './rootfs.ts'
import { tarBytes, type TarMember } from './tar-builder.ts'

const slash = Buffer.from('/')

// most of a small unpack is the start of its worker; with this it compiles nothing
process.env['NODE_COMPILE_CACHE'] ??= path.join(home, 'workers')

/** Whether tests run as root; others unpack rootless. */
export const isRoot: boolean = process.geteuid?.() === 0

/** A way of making a rootfs. */
export interface Chain {
  readonly name: string
  /** A new application. */
  make(): Koci
  /** Why it can't be tried here. */
  readonly skip?: string | false
  /** Undoes what an unpack that succeeded leaves beside files: mounts. */
  readonly undo?: (place: Place) => void
  /** What could be one layer is only tried as two. */
  readonly onlyInLayers?: boolean
}

/** One tree, with a record. */
export const merged: Chain = {
  name: 'merged',
  make: () => new Koci().use(limits()).use(mtree()),
}

/** A directory for each layer, mounted one upon another. */
export const stacked: Chain = {
  name: 'overlay',
  make: () => new Koci().use(limits()).use(overlay()),
  skip: overlayObstacle() ?? false,
  // not unmountBundle(), which refuses while another test's mount namespace has a copy
  undo: ({ rootfs }) => unmount(rootfs),
  onlyInLayers: true,
}

/** The chains that every case goes through, unless it says otherwise. */
export const chains: readonly Chain[] = [merged, stacked]

/**
 * Absolute paths. As seen from the rootfs, `canary` is `../../canary`, and `evil`, whose name begins like the
 * rootfs's, is `../rootfs-evil`. Both hold `file`, `sub/file`, `link` to `file`, `a` and `b`, which are one file.
 */
export interface Place {
  readonly base: string
  readonly images: string
  readonly bundle: string
  readonly rootfs: string
  readonly canary: string
  readonly evil: string
}

/** What `inspect` gets to see. */
export interface Found {
  readonly place: Place
  readonly warnings: readonly Warning[]
  /** Of the unpack that was rejected. */
  readonly error: unknown
}

/** An image that is meant to break out, to confuse or to exhaust, and what is to become of it. */
export interface HostileCase {
  /** Of the catalogue of hostile inputs, or the number of an advisory. */
  readonly id: string
  readonly what: string
  /** Base first; members, or the bytes of a tar. */
  readonly layers: readonly TestLayer[] | ((place: Place) => readonly TestLayer[])
  /** What else the image has. */
  readonly image?: Omit<TestImage, 'layers'>
  /** Whether one layer is also cut in two; default true. Those given as bytes never are. */
  readonly split?: boolean
  /** The error's code without its prefix; without it the unpack is to succeed. */
  readonly rejects?: string
  /** The code of the error's cause. */
  readonly cause?: string
  /** What the error says beside: the entry's name, escaped. */
  readonly says?: string | RegExp
  /** False where the error isn't about one layer. */
  readonly aboutLayer?: boolean
  /**
   * What is in the rootfs: a line per name, in byte order, as {@link shapeOf} makes them. Directories that lead to
   * an absolute path of the place are left out, and it is `@base` there, before all else.
   */
  readonly tree?: readonly string[]
  /** The same where it differs for {@link stacked} layers: names of a file that are in several are files of their own. */
  readonly stackedTree?: readonly string[]
  /** What {@link stacked} layers can't hold although one tree can; as `rejects`. */
  readonly stackedRejects?: string
  /** The same after an error, of an extraction that nobody rolls back. */
  readonly kept?: readonly string[]
  /** False where it can't be tried layer by layer. */
  readonly direct?: boolean
  /** Codes of the warnings, sorted; none if left out, anything with null. */
  readonly warns?: readonly string[] | null
  readonly options?: Omit<Partial<UnpackOptions>, 'rootless'> & { readonly rootless?: boolean }
  /** Why it can't be tried here. */
  readonly skip?: string | false
  /** Needs a file system with all the features; most are tried in memory. */
  readonly onDisk?: boolean
  /** Also through the command line, in a process of its own. */
  readonly cli?: boolean
  /** Seconds that it may take; default 30. */
  readonly seconds?: number
  /** Only these chains. */
  readonly chains?: readonly Chain[]
  /** Looks closer; called before anything is removed. */
  readonly inspect?: (t: Test, found: Found) => void | Promise<void>
}

/**
 * Tries a case through all chains, as one layer and as two, the last member being the second; and, directly in this
 * thread, where that takes a millisecond, cut at every place. A test of its own, named by its id.
 */
export async function hostile(t: Test, test: HostileCase): Promise<void> {
  const { id, what, skip = false } = test
  await t.test(`${id} ${what}`, { skip }, async t => {
    for (const chain of test.chains ?? chains)
      await t.test(chain.name, { skip: chain.skip ?? false }, async t => {
        for (const cut of cutsOf(test)
          .slice(0, 2)
          .slice(chain.onlyInLayers ? -1 : 0))
          await withPlace(test, place => run(t, expectedOf(test, chain), chain, cut, place))
      })
    if (isPlain(test))
      await t.test('layer by layer', async t => {
        for (const cut of cutsOf(test))
          await withPlace(test, async place => apply(t, test, cut, place))
      })
    if (test.cli === true) await withPlace(test, place => runProgram(t, test, place))
  })
}

function expectedOf(test: HostileCase, chain: Chain): HostileCase {
  const { stackedTree, stackedRejects } = test
  if (chain !== stacked) return test
  if (stackedRejects !== undefined) return { ...test, rejects: stackedRejects }
  return stackedTree ? { ...test, tree: stackedTree } : test
}

/**
 * What a tree holds, one line per name in byte order: its path, its type, then the content of a small file, or size and
 * hash; the target of a symlink; the numbers of a device; `=path` for a further name of the same file.
 */
export function shapeOf(rootfs: string): string[] {
  if (!isRoot) execFileSync('chmod', ['-R', 'u+rwX', rootfs], { timeout: 20_000 })
  const lines: string[] = []
  visit(Buffer.from(rootfs), Buffer.alloc(0), lines, new Map())
  return lines
}

function visit(dir: Buffer, prefix: Buffer, lines: string[], first: Map<string, string>): void {
  for (const name of readdirSync(dir, { encoding: 'buffer' }).sort((a, b) => a.compare(b))) {
    const file = Buffer.concat([dir, slash, name])
    const stat = lstatSync(file, { bigint: true })
    const shown = printable(Buffer.concat([prefix, name]))
    const parts = [shown, ...contentOf(file, stat)]
    const inode = `${stat.dev}:${stat.ino}`
    const known = first.get(inode)
    if (known !== undefined) parts.push(`=${known}`)
    else if (!stat.isDirectory()) first.set(inode, shown)
    lines.push(parts.join(' '))
    if (stat.isDirectory()) visit(file, Buffer.concat([prefix, name, slash]), lines, first)
  }
}

function contentOf(file: Buffer, stat: BigIntStats): string[] {
  if (stat.isDirectory()) return ['dir']
  if (stat.isSymbolicLink())
    return ['link', '->', printable(readlinkSync(file, { encoding: 'buffer' }))]
  if (stat.isFIFO()) return ['fifo']
  if (stat.isCharacterDevice() || stat.isBlockDevice()) {
    const [major, minor] = [
      (stat.rdev >> 8n) & 0xfffn,
      (stat.rdev & 0xffn) | ((stat.rdev >> 12n) & 0xfff00n),
    ]
    return [stat.isBlockDevice() ? 'block' : 'char', `${major},${minor}`]
  }
  if (!stat.isFile()) return ['socket']
  if (stat.size === 0n) return ['file']
  if (stat.size > 64n) return ['file', `${stat.size}`, ...hashOf(file, stat.size)]
  return ['file', printable(readFileSync(file))]
}

/** Of what is too large to be read, the size says enough. */
function hashOf(file: Buffer, size: bigint): string[] {
  if (size > 1n << 26n) return []
  return [createHash('sha256').update(readFileSync(file)).digest('hex').slice(0, 16)]
}

/** Where a case happens; removed by whoever asked. */
export function makePlace(onDisk = false): Place {
  const prefix = 'koci-hostile-'
  const base = onDisk ? mkdtempSync(path.join(tmpdir(), prefix)) : makeMemoryDir(prefix)
  const at = (name: string): string => path.join(base, name)
  const bundle = at('bundle')
  const rootfs = path.join(bundle, 'rootfs')
  const place = { base, bundle, rootfs, evil: `${rootfs}-evil` }
  const whole = { ...place, images: at('images'), canary: at('canary') }
  plant(whole.canary)
  plant(whole.evil)
  return whole
}

/** Removes it, whatever the modes in it. */
export function removePlace({ base }: Place): void {
  if (!isRoot)
    execFileSync('chmod', ['-R', 'u+rwX', base], { stdio: 'ignore', timeout: 20_000 })
  try {
    rmSync(base, { recursive: true })
  } catch {
    // node's own gives up on paths beyond PATH_MAX, and a process for every case takes long
    execFileSync('rm', ['-rf', '--one-file-system', base], { timeout: 60_000 })
  }
}

/** Everything that counts about what lies beside the rootfs, and when it was changed last. */
export function fingerprint({ canary, evil }: Place): string[] {
  return [canary, evil].flatMap(root =>
    [...snapshot(root)].map(([name, line]) => {
      const file = Buffer.from(name === '' ? root : `${root}/${name}`, 'latin1')
      return `${name}: ${line} ${lstatSync(file, { bigint: true }).ctimeNs}`
    }),
  )
}

/** All names beneath the base but those in the rootfs; what a failed unpack must not add to. */
export function namesBeside({ base, rootfs }: Place): string[] {
  const names: string[] = []
  const visit = (dir: string): void => {
    for (const entry of readdirSync(dir, { withFileTypes: true })) {
      const file = path.join(dir, entry.name)
      names.push(path.relative(base, file))
      if (entry.isDirectory() && file !== rootfs) visit(file)
    }
  }
  visit(base)
  return names.sort()
}

async function withPlace(
  { onDisk }: HostileCase,
  use: (place: Place) => Promise<void>,
): Promise<void> {
  const place = makePlace(onDisk)
  try {
    await use(place)
  } finally {
    removePlace(place)
  }
}

function plant(dir: string): void {
  mkdirSync(path.join(dir, 'sub'), { recursive: true, mode: 0o700 })
  for (const name of ['file', 'sub/file', 'a'])
    writeFileSync(path.join(dir, name), `the secret of ${name}`, { mode: 0o600 })
  linkSync(path.join(dir, 'a'), path.join(dir, 'b'))
  symlinkSync('file', path.join(dir, 'link'))
  mknodat(AT_FDCWD, cstring(path.join(dir, 'fifo')), S_IFIFO | 0o644, 0, 0)
  try {
    setXattr(cstring(path.join(dir, 'file')), Buffer.from('user.canary'), Buffer.from('alive'))
  } catch {
    // not on every file system; the rest says enough there
  }
  for (const name of ['file', 'sub/file', 'a', 'sub', '.']) {
    if (isRoot) chownSync(path.join(dir, name), 1234, 1234)
    utimesSync(path.join(dir, name), 1_000_000_000, 1_000_000_000)
  }
}

/** How many members are in the first of two layers, undefined being the layers as given; the last cut comes first. */
function cutsOf({ layers, split = true }: HostileCase): Array<number | undefined> {
  const [only, ...more] = typeof layers === 'function' ? layers(anyPlace) : layers
  if (!split || only === undefined || Buffer.isBuffer(only) || more.length > 0)
    return [undefined]
  const count = Math.max(0, only.length - 1)
  return [undefined, ...Array.from({ length: count }, (_, at) => count - at)]
}

const anyPlace: Place = {
  base: '/b',
  images: '/b/images',
  bundle: '/b/bundle',
  rootfs: '/b/bundle/rootfs',
  canary: '/b/canary',
  evil: '/b/bundle/rootfs-evil',
}

function layersOf(test: HostileCase, place: Place, cut?: number): readonly TestLayer[] {
  const layers = typeof test.layers === 'function' ? test.layers(place) : test.layers
  if (cut === undefined) return layers
  const [members] = layers as readonly [readonly TarMember[]]
  return [members.slice(0, cut), members.slice(cut)]
}

function build(test: HostileCase, place: Place, cut?: number): Promise<string> {
  return makeImage(place.images, 'test', { ...test.image, layers: layersOf(test, place, cut) })
}

/** Whether nothing but the tars of the layers matters. */
function isPlain({ image, options, direct = true }: HostileCase): boolean {
  return (
    direct && image === undefined && (options === undefined || isSubset(options, jobOptions))
  )
}

const jobOptions = ['keepDirlinks', 'compat', 'uidMap', 'gidMap', 'rootless']

function isSubset(object: object, keys: readonly string[]): boolean {
  return Object.keys(object).every(key => keys.includes(key))
}

/** Extracts layer by layer, as a worker does, so that what is left after an error can be looked at. */
function apply(t: Test, test: HostileCase, cut: number | undefined, place: Place): void {
  const label = cut === undefined ? 'uncut' : `cut at ${cut}`
  mkdirSync(place.rootfs)
  const before = fingerprint(place)
  const warnings: Warning[] = []
  let error: unknown
  try {
    for (const [index, layer] of layersOf(test, place, cut).entries()) {
      const bytes = Buffer.isBuffer(layer) ? layer : tarBytes(layer)
      const job = makeJob(path.join(place.base, `layer${index}`), bytes, place.rootfs)
      const {
        keepDirlinks = false,
        rootless = !isRoot,
        uidMap,
        gidMap,
        compat,
      } = test.options ?? {}
      const options = { keepDirlinks, rootless, uidMap, gidMap, compat, limits: defaultLimits }
      const result = extractBlob({ ...job, ...options, first: index === 0 }, new Control())
      warnings.push(...result.warnings)
    }
  } catch (thrown) {
    error = thrown
  }
  t.strictSame(fingerprint(place), before, `nothing outside was touched, ${label}`)
  if (test.rejects === undefined) expectTree(t, test, place, label, error, warnings)
  else {
    expectError(t, { ...test, aboutLayer: false }, error, label)
    if (test.kept) t.strictSame(shapeOf(place.rootfs), test.kept, `what is left, ${label}`)
  }
}

async function run(
  t: Test,
  test: HostileCase,
  chain: Chain,
  cut: number | undefined,
  place: Place,
): Promise<void> {
  const label = cut === undefined ? 'uncut' : `cut at ${cut}`
  const image = await build(test, place, cut)
  const before = { canary: fingerprint(place), names: namesBeside(place) }
  const { seconds = 30 } = test
  const signal = AbortSignal.timeout(2 * seconds * 1000)
  const warnings: Warning[] = []
  const app = chain.make()
  app.on('warning', ({ data }) => void warnings.push(data))
  const started = performance.now()
  let error: unknown
  try {
    await app.unpack({
      image,
      bundle: place.bundle,
      rootless: !isRoot,
      signal,
      ...test.options,
    })
  } catch (thrown) {
    error = thrown
  }
  const took = (performance.now() - started) / 1000
  t.ok(took < seconds, `in time: ${took.toFixed(1)} s of ${seconds}, ${label}`)
  try {
    t.strictSame(fingerprint(place), before.canary, `nothing outside was touched, ${label}`)
    if (test.rejects === undefined) expectTree(t, test, place, label, error, warnings)
    else {
      expectError(t, test, error, label)
      t.strictSame(namesBeside(place), before.names, `nothing remains, ${label}`)
      const mounts = readFileSync('/proc/self/mountinfo', 'utf8')
      t.notOk(mounts.includes(place.base), `nothing is mounted, ${label}`)
    }
    await test.inspect?.(t, { place, warnings, error })
  } finally {
    if (error === undefined) chain.undo?.(place)
  }
}

function expectTree(
  t: Test,
  test: HostileCase,
  place: Place,
  label: string,
  error: unknown,
  warnings: readonly Warning[],
): void {
  if (error !== undefined) {
    t.fail(`unpacked, ${label}`, { found: inspect(error) })
    return
  }
  if (test.tree) {
    const base = place.base.slice(1)
    const lines = shapeOf(place.rootfs)
    const isThere = lines.some(line => line.startsWith(base))
    const shown = lines
      .filter(line => !isThere || !leadsTo(line, base))
      .map(line => line.replaceAll(base, '@base'))
      // where it comes in byte order depends on where the place is
      .sort((a, b) => Number(b.startsWith('@base')) - Number(a.startsWith('@base')))
    t.strictSame(shown, test.tree, `what it holds, ${label}`)
  }
  if (test.warns === null) return
  const codes = [...new Set(warnings.map(({ code }) => code))].sort()
  t.strictSame(codes, test.warns ?? [], `warnings, ${label}`)
}

function leadsTo(line: string, base: string): boolean {
  const [name = '', type] = line.split(' ')
  return type === 'dir' && (base === name || base.startsWith(`${name}/`))
}

function expectError(t: Test, test: HostileCase, error: unknown, label: string): void {
  const { rejects, cause, says, aboutLayer = true } = test
  if (error === undefined) {
    t.fail(`rejected, ${label}`)
    return
  }
  const { message, details } = error as Error & { details?: Record<string, unknown> }
  t.match(error, { code: `ERR_KOCI_${rejects}` }, `${message}, ${label}`)
  if (cause !== undefined) t.match(error, { cause: { code: cause } }, `its cause, ${label}`)
  t.equal(printable(message), message, `the message is fit to be printed, ${label}`)
  if (says !== undefined)
    t.ok(
      typeof says === 'string' ? message.includes(says) : says.test(message),
      `it says ${says}: ${message}`,
    )
  if (aboutLayer)
    t.match(
      `${String(details?.['layer'])} ${message}`,
      /sha256:[0-9a-f]{64}/,
      'it names the layer',
    )
}

/** As a user would see it: one line, no stack, the status of its class. */
async function runProgram(t: Test, test: HostileCase, place: Place): Promise<void> {
  const image = await build(test, place)
  const before = { canary: fingerprint(place), names: namesBeside(place) }
  const rootless = isRoot ? [] : ['--rootless']
  const { code, stderr } = await koci(['unpack', ...rootless, '--image', image, place.bundle])
  t.strictSame(fingerprint(place), before.canary, 'nothing outside was touched by the program')
  t.notMatch(stderr, /\n\s+at |node:|\.ts:\d/, 'no stack')
  // oxlint-disable-next-line no-control-regex
  t.notMatch(stderr, /[\x00-\x09\x0b-\x1f\x7f]/, 'nothing that a terminal would obey')
  if (test.rejects === undefined) {
    t.equal(code, 0, stderr)
    return
  }
  t.ok(code !== null && code > 0 && code < 128, `it exits with ${code}`)
  t.match(stderr, new RegExp(`ERR_KOCI_${test.rejects}`), 'it says the code')
  t.equal(stderr.trimEnd().split('\n').length, 1, `one line: ${stderr}`)
  t.strictSame(namesBeside(place), before.names, 'nothing remains of the program')
}
