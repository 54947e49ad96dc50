// What is fuzzed, and what must hold. Every input comes from one number, so that a number is all it takes to see it again.
import { mkdirSync, rmSync } from 'node:fs'
import path from 'node:path'
import { gzipSync, zstdCompressSync } from 'node:zlib'
import * as fc from 'fast-check'
import { KociError } from '../../lib/errors.ts'
import { Control } from '../../lib/layer/control.ts'
import { extractBlob, type ExtractJob, type ExtractResult } from '../../lib/layer/extract.ts'
import { digestOf } from '../../lib/oci/digest.ts'
import { openDescriptors } from './descriptors.ts'
import { collectTar } from './collect-tar.ts'
import { makeJob, makeSandbox } from './extract.ts'
import type { GoMember, GoResult } from './go-tar.ts'
import { anyImage, toMembers } from './image-arbitrary.ts'
import { applyAll, Refusal, type Entry } from './oracle.ts'
import { isRoot, run } from './peers.ts'
import { tarBytes } from './tar-builder.ts'
import {
  compareWithGo,
  largest,
  mutate,
  normalized,
  pick,
  random,
  seeds,
  type Random,
} from './tar-mutations.ts'
import { describeTree } from './tree.ts'

/** One case. */
export interface FuzzInput {
  readonly seed: number
  /** What is in the rootfs before. */
  readonly below: readonly Entry[]
  /** The layer, spoilt. */
  readonly tar: Buffer
  /** The blob, which is the layer, compressed and perhaps spoilt once more. */
  readonly blob: Buffer
  readonly compression: 'none' | 'gzip' | 'zstd'
  /** Whether the blob was spoilt after it was compressed. */
  readonly torn: boolean
}

/** What became of it: a kind to be counted, and what is wrong, if anything is. */
export interface FuzzOutcome {
  readonly kind: string
  readonly problem?: string
}

const images = anyImage({ privileged: true, maxLayers: 2, maxEntries: 12 })
const compress = { none: (tar: Buffer) => tar, gzip: gzipSync, zstd: zstdCompressSync }
/** The tree isn't what the entries say, and a warning says so. */
const altering = new Set([
  'DEVICE_AS_FILE',
  'IGNORED_XATTR',
  'TIME_CLAMPED',
  'XATTR_REFUSED',
  'XATTRS_UNSUPPORTED',
])

/** The input of a number. */
export function inputOf(seed: number): FuzzInput {
  const next = random(seed)
  const [{ layers } = { layers: [] }] = fc.sample(images, { seed, numRuns: 1 })
  const members = toMembers({ layers })
  const original = next(2) === 0 ? pick(next, seeds) : tarBytes(members[1] ?? members[0] ?? [])
  const tar = next(20) === 0 ? original : mutate(original, next)
  const compression = pick(next, ['none', 'none', 'gzip', 'zstd'] as const)
  const whole = compress[compression](tar)
  const torn = compression !== 'none' && next(3) === 0
  const blob = torn ? tear(whole, next) : whole
  return { seed, below: layers[0] ?? [], tar, blob, compression, torn }
}

/** Spoils what is compressed: a byte changed, the end gone, or something after it. */
function tear(blob: Buffer, next: Random): Buffer {
  const bytes = Buffer.from(blob)
  for (let edits = 1 + next(3); edits > 0; edits--) bytes[next(bytes.length)] = next(256)
  switch (next(4)) {
    case 0:
      return bytes.subarray(0, next(bytes.length))
    case 1:
      return Buffer.concat([bytes, pick(next, [Buffer.alloc(1), blob, bytes])])
    case 2:
      return Buffer.concat([blob, pick(next, [Buffer.alloc(7), Buffer.from('x'), bytes])])
    default:
      return bytes
  }
}

/** Reads the input, and applies it in `directory`; `go` is what Go read, if there is a Go. */
export function runInput(input: FuzzInput, directory: string, go?: GoResult): FuzzOutcome {
  try {
    const ours = collectTar(input.tar)
    if (ours.error && !(ours.error instanceof KociError)) throw ours.error
    const verdict = go && compareWithGo(ours, go)
    if (verdict?.problem !== undefined) return verdict
    return applyInput(input, directory, go)
  } catch (error) {
    const { stack } = error as Error
    return { kind: 'crash', problem: `not an error of koci's: ${stack}` }
  }
}

function applyInput(input: FuzzInput, directory: string, go?: GoResult): FuzzOutcome {
  const before = openDescriptors()
  mkdirSync(directory)
  try {
    const sandbox = makeSandbox(directory)
    const rootless = !isRoot
    sandbox.apply(toMembers({ layers: [[...input.below]] }), { rootless })
    const made = makeJob(path.join(directory, 'blob'), input.blob, sandbox.rootfs)
    const job: ExtractJob = {
      ...made,
      blob: { ...made.blob, compression: input.compression },
      diffID: digestOf(input.tar),
      rootless,
    }
    const result = extracted(job)
    if (sandbox.escaped()) return { kind: 'escape', problem: 'the canary was touched' }
    if (openDescriptors() !== before)
      return { kind: 'leak', problem: 'a descriptor is left open' }
    if (typeof result === 'string') return { kind: result }
    return compareTrees(input, sandbox.rootfs, result, go)
  } finally {
    removeAll(directory)
  }
}

/** Removes a tree, whatever modes the directories in it have. */
export function removeAll(directory: string): void {
  try {
    rmSync(directory, { recursive: true, force: true })
  } catch (error) {
    if (isRoot) throw error
    run('chmod', ['-R', 'u+rwX', directory])
    rmSync(directory, { recursive: true, force: true })
  }
}

/** The result, or the code of koci's error. */
function extracted(job: ExtractJob): ExtractResult | string {
  try {
    return extractBlob(job, new Control())
  } catch (error) {
    if (error instanceof KociError) return error.code
    throw error
  }
}

/** What koci accepted is the tree that the oracle makes of what Go read. */
function compareTrees(
  input: FuzzInput,
  rootfs: string,
  { warnings }: ExtractResult,
  go?: GoResult,
): FuzzOutcome {
  const isAltered = warnings.some(({ code }) => altering.has(code))
  if (!go || !isRoot || isAltered || go.members.some(({ size }) => size > largest))
    return { kind: 'applied' }
  const wanted = oracleTree([input.below, normalized(go).map(toEntry)])
  const found = describeTree(rootfs, { root: false })
  if (typeof wanted === 'string')
    return {
      kind: 'accepted',
      problem: `the oracle says ${wanted}; koci made\n${found.join('\n')}`,
    }
  if (wanted.slice(1).join('\n') === found.join('\n')) return { kind: 'same' }
  const lines = wanted.slice(1).join('\n')
  return { kind: 'different', problem: `koci made\n${found.join('\n')}\nand not\n${lines}` }
}

function oracleTree(layers: ReadonlyArray<readonly Entry[]>): string[] | string {
  try {
    return applyAll(layers).describe()
  } catch (error) {
    if (error instanceof Refusal) return `${error.code}: ${error.message}`
    throw error
  }
}

const types: Record<string, Entry['type']> = {
  '0': 'file',
  '1': 'hardlink',
  '2': 'symlink',
  '3': 'char',
  '4': 'block',
  '5': 'directory',
  '6': 'fifo',
}

function toEntry(member: GoMember): Entry {
  const type = types[member.type]
  if (type === undefined) throw new Error(`Go read a member of type ${member.type}`)
  const { mode, uid, gid, size, sha256, devmajor, devminor, xattrs } = member
  const bytes = (text: string): Buffer => Buffer.from(text, 'base64')
  return {
    type,
    path: bytes(member.name),
    mode,
    uid,
    gid,
    mtime: BigInt(member.mtime),
    content: { size, sha256 },
    linkname: bytes(member.linkname),
    devmajor,
    devminor,
    // symlinks, fifos and devices have none in the oracle, and koci warns
    xattrs: Object.entries(xattrs).map(([name, value]) => [bytes(name), bytes(value)]),
  }
}
