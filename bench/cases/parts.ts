// What unpacking consists of, each part by itself in this process and in memory; and what the whole takes beside them.
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { readPrivileges } from '../../lib/fs/privileges.ts'
import { openRooted } from '../../lib/fs/rooted.ts'
import { LayerApplier } from '../../lib/layer/apply.ts'
import { createCompressor } from '../../lib/layer/compress.ts'
import { createDecompressor } from '../../lib/layer/decompress.ts'
import type { DirectoryState } from '../../lib/layer/directory-state.ts'
import type { Layer } from '../../lib/layer/layer.ts'
import type { TarHandler } from '../../lib/layer/tar-header.ts'
import { TarReader } from '../../lib/layer/tar-reader.ts'
import { Warnings } from '../../lib/layer/warnings.ts'
import type { Bench } from '../bench.ts'
import type { Case, CaseResult, Rate, Series } from '../case.ts'
import { withLayers } from '../make-image.ts'
import { isRoot } from '../peers.ts'
import type { Contender } from '../race.ts'

const piece = 1 << 18
const compressAtMost = 300_000_000

/** Seconds of wall and of CPU that were spent on a part so far, and on how many bytes and entries. */
class Part {
  wall = 0
  cpu = 0
  bytes = 0
  entries = 0

  async spend(work: () => void | Promise<void>): Promise<void> {
    const cpu = process.cpuUsage()
    const start = performance.now()
    await work()
    this.wall += (performance.now() - start) / 1000
    const { user, system } = process.cpuUsage(cpu)
    this.cpu += (user + system) / 1e6
  }
}

async function run(bench: Bench): Promise<CaseResult> {
  const { layout, refName, image } = await bench.corpus()
  const parts = {
    inflate: new Part(),
    hash: new Part(),
    read: new Part(),
    apply: new Part(),
    compress: new Part(),
  }
  const whole = await bench.race([
    bench.making('koci unpack', bundle => bench.koci('unpack', '--image', image, bundle)),
  ])
  const tarRuns: Series[] = []
  const target = bench.newDirectory('tar-x')
  const tree = bench.newDirectory('applied')
  try {
    await withLayers(layout, refName, async layers => {
      for (const layer of layers) {
        bench.signal.throwIfAborted()
        const tar = await measureParts(layer, tree, parts)
        if (!bench.peers.has('tar')) continue
        const contender = await tarContender(layer.index, tar, target, bench)
        tarRuns.push(...(await bench.race([contender], 1)))
      }
    })
  } finally {
    await bench.remove(target)
    await bench.remove(tree)
  }
  return result(bench, whole, tarRuns, parts)
}

async function result(
  bench: Bench,
  series: readonly Series[],
  tarRuns: readonly Series[],
  { inflate, hash, read, apply, compress }: Record<string, Part>,
): Promise<CaseResult> {
  if (!inflate || !hash || !read || !apply || !compress)
    return { series, checks: [], notes: [] }
  const tarCpu = tarRuns.reduce((sum, { median }) => sum + median.user + median.sys, 0)
  const { user, sys } = series[0]?.median ?? { user: Number.NaN, sys: Number.NaN }
  const sum = inflate.cpu + hash.cpu + tarCpu
  const perSecond = (name: string, amount: number, part: Part, unit: string): Rate => ({
    name,
    value: amount / part.wall,
    unit,
  })
  return {
    series,
    rates: [
      perSecond('tar reader', read.bytes / 1e6, read, 'MB/s'),
      perSecond('tar reader', read.entries, read, 'entries/s'),
      perSecond('inflate', inflate.bytes / 1e6, inflate, 'MB/s'),
      perSecond('SHA-256', hash.bytes / 1e6, hash, 'MB/s'),
      perSecond('read and apply', apply.entries, apply, 'entries/s'),
      perSecond('gzip, all cores', compress.bytes / 1e6, compress, 'MB/s'),
      { name: 'CPU of inflating', value: inflate.cpu, unit: 's' },
      { name: 'CPU of hashing three times', value: hash.cpu, unit: 's' },
      { name: 'CPU of tar x', value: tarCpu, unit: 's' },
    ],
    checks: bench.peers.has('tar')
      ? [await bench.check('CPU of koci, of the sum of the parts', (user + sys) / sum, 1.35)]
      : [],
    notes: [
      'parts in this process, warm, from memory; hashed are blobs once and tars twice, for DiffIDs and for files',
      'the inflater is koci’s own (zlib in this process): a slower one would flatter koci',
    ],
  }
}

/** Adds one layer to the parts; returns its tar. */
async function measureParts(
  layer: Layer,
  tree: string,
  parts: Record<'inflate' | 'hash' | 'read' | 'apply' | 'compress', Part>,
): Promise<Buffer> {
  const { path } = await layer.locateBlob()
  const blob = readFileSync(path)
  const chunks: Buffer[] = []
  for await (const chunk of layer.open()) chunks.push(Buffer.from(chunk))
  const tar = Buffer.concat(chunks)

  const { inflate, hash, read, apply, compress } = parts
  await inflate.spend(() => inflateAll(blob, layer))
  inflate.bytes += tar.length
  await hash.spend(() => {
    for (const bytes of [blob, tar, tar]) {
      const sum = createHash('sha256')
      for (const chunk of cut(bytes)) sum.update(chunk)
      sum.digest()
    }
  })
  hash.bytes += blob.length + 2 * tar.length
  let entries = 0
  const counter: TarHandler = {
    entry: () => {
      entries += 1
    },
    data() {},
    endEntry() {},
  }
  await read.spend(() => readTar(tar, counter))
  read.bytes += tar.length
  read.entries += entries
  await apply.spend(() => applyTar(tar, tree))
  apply.entries += entries
  if (compress.bytes < compressAtMost) {
    const some = tar.subarray(0, compressAtMost - compress.bytes)
    await compress.spend(() => compressAll(some))
    compress.bytes += some.length
  }
  return tar
}

function inflateAll(blob: Buffer, { compression }: Layer): void {
  const decompressor = createDecompressor(compression, () => {})
  try {
    for (const chunk of cut(blob)) decompressor.push(chunk)
    decompressor.end()
  } finally {
    decompressor.close()
  }
}

function readTar(tar: Buffer, handler: TarHandler): void {
  const reader = new TarReader(handler)
  for (const chunk of cut(tar)) reader.push(chunk)
  reader.end()
}

function applyTar(tar: Buffer, tree: string): void {
  const privileges = readPrivileges()
  const rooted = openRooted<DirectoryState>(tree, { widen: !privileges.overridesModes })
  const options = { rootless: !isRoot, keepDirlinks: false, first: false }
  const maps = isRoot
    ? {}
    : { uidMap: ownMap(process.geteuid?.()), gidMap: ownMap(process.getegid?.()) }
  const all = { uidMap: undefined, gidMap: undefined, ...maps, ...options, hashes: undefined }
  const applier = new LayerApplier(rooted, all, privileges, new Warnings())
  try {
    readTar(tar, applier)
    applier.finish()
  } finally {
    applier.close()
    rooted.close()
  }
}

function ownMap(hostID = 0): { containerID: number; hostID: number; size: number }[] {
  return [{ containerID: 0, hostID, size: 1 }]
}

async function compressAll(bytes: Buffer): Promise<void> {
  const compressor = createCompressor('gzip', () => {})
  for (const chunk of cut(bytes)) await compressor.write(chunk)
  await compressor.end()
}

function* cut(bytes: Buffer): Generator<Buffer> {
  for (let at = 0; at < bytes.length; at += piece) yield bytes.subarray(at, at + piece)
}

/** GNU tar with a plain tar, which is there only as long. */
async function tarContender(
  index: number,
  tar: Buffer,
  target: string,
  bench: Bench,
): Promise<Contender> {
  const { writeFile, rm } = await import('node:fs/promises')
  const file = bench.newPath('plain.tar')
  return {
    name: `tar x of layer ${index}`,
    prepare: async () => {
      await writeFile(file, tar)
      return { program: 'tar', args: ['xf', file, '--numeric-owner', '-C', target] }
    },
    after: () => rm(file),
  }
}

/** Where the time can go. */
export const benchCase: Case = {
  name: 'parts',
  description: 'parts one by one, and the CPU time of the whole beside their sum',
  run,
}
