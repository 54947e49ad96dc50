// Extracts one layer into a directory, synchronously: what a worker does.
import { createError, wrapError } from '../errors.ts'
import { readPrivileges } from '../fs/privileges.ts'
import { openRooted, type Rooted } from '../fs/rooted.ts'
import type { LayerRecordSummary } from '../bundle/layer-record.ts'
import type { Digest } from '../oci/digest.ts'
import type { IdMap } from '../oci/idmap.ts'
import { LayerApplier } from './apply.ts'
import { RATIO_FLOOR, readBlob, type BlobOutput, type BlobSource } from './blob-reader.ts'
import type { Control } from './control.ts'
import type { DirectoryState } from './directory-state.ts'
import type { Dialect } from './extraction.ts'
import { FileHashes, keptHashes } from './file-hashes.ts'
import { isSummedAhead } from './hash-ahead.ts'
import { readInflated, type Inflated } from './inflate-ahead.ts'
import type { StackingReport } from './layer.ts'
import type { Limits } from './limits.ts'
import { SlotSums } from './ring.ts'
import type { TarHandler, TarHeader, TarWarning } from './tar-header.ts'
import { TarReader } from './tar-reader.ts'
import { Warnings, type ApplyWarning } from './warnings.ts'

/** A layer to extract; plain data, so that it can cross to a worker. */
export interface ExtractJob {
  readonly blob: BlobSource
  readonly diffID: Digest
  /** An existing directory; its last component may not be a symlink. The layer is applied onto what is in it. */
  readonly target: string
  readonly uidMap?: readonly IdMap[] | undefined
  readonly gidMap?: readonly IdMap[] | undefined
  readonly rootless?: boolean
  readonly keepDirlinks?: boolean
  readonly compat?: 'clamp' | undefined
  /** The target is empty: whiteouts have nothing to delete, and nothing is noted for their sake. */
  readonly first?: boolean
  /** How whiteouts are stored; in an overlay dialect the target must be empty. @default 'plain' */
  readonly dialect?: Dialect
  /** Hashes files while they are written. */
  readonly hashFiles?: boolean
  /** The worker then makes this file with the record of the target, in which nothing else may be, and keeps the hashes. */
  readonly recordTo?: string | undefined
  readonly limits?: Limits
}

/** What extraction found out. */
export interface ExtractResult {
  readonly entries: number
  /** Of the uncompressed tar, all that follows its end included. */
  readonly bytes: number
  /** Logical size of the files. */
  readonly fileBytes: number
  /** One per kind, with the first case and a count. */
  readonly warnings: readonly ApplyWarning[]
  /** Of these, what a lack of privilege or the file system changed. */
  readonly degraded: readonly ApplyWarning[]
  /** What a layer in an overlay dialect takes for granted about those below. */
  readonly stacking?: StackingReport | undefined
  /** By inode of the target's file system; files only. */
  readonly hashes?: FileHashes | undefined
  /** Of `recordTo`. */
  readonly recorded?: LayerRecordSummary | undefined
}

/**
 * Extracts and verifies a layer; its blob isn't read here if another thread inflates it. The verdict on the bytes comes
 * last, so what an error leaves in the target must not be used. All descriptors are closed afterwards, also after an error.
 * @throws {KociError} what `readBlob`, the tar reader and `LayerApplier` throw; ERR_KOCI_LIMIT_EXCEEDED for
 * `maxEntries`; ERR_KOCI_IO where the target can't be opened
 */
export function extractBlob(
  job: ExtractJob,
  control: Control,
  inflated?: Inflated,
): ExtractResult {
  const subject = `layer ${job.blob.digest}`
  const privileges = readPrivileges()
  const warnings = new Warnings()
  const hashes = job.hashFiles === true ? new FileHashes(keptHashes) : undefined
  const sums = hashes && inflated ? SlotSums.of(inflated.ring) : undefined
  const { limits = {} } = job
  const rooted = openTarget(job.target, !privileges.overridesModes)
  const applier = new LayerApplier(
    rooted,
    {
      uidMap: job.uidMap,
      gidMap: job.gidMap,
      rootless: job.rootless ?? false,
      keepDirlinks: job.keepDirlinks ?? false,
      clamp: job.compat === 'clamp',
      first: job.first ?? false,
      dialect: job.dialect,
      hashes,
      hasSums: sums && isSummedAhead,
      maxDepth: limits.maxDepth,
    },
    privileges,
    warnings,
  )
  try {
    const handler = new SupervisedApplier(
      applier,
      control,
      limits,
      job.blob.size,
      subject,
      sums,
    )
    const reader = new TarReader(handler, { subject })
    const output: BlobOutput = {
      data: chunk => {
        sums?.enter(chunk)
        reader.push(chunk)
      },
      end: () => {
        reader.end()
      },
    }
    const bytes = inflated
      ? readInflated(inflated, job.blob, job.diffID, control, output)
      : readBlob(job.blob, job.diffID, limits, control, output)
    applier.finish()
    const { entries, fileBytes, stacking } = applier
    return {
      entries,
      bytes,
      fileBytes,
      warnings: warnings.list(),
      degraded: warnings.degraded(),
      stacking,
      hashes,
    }
  } finally {
    applier.close()
    rooted.close()
  }
}

/** Opens the directory that a layer is applied to. */
export function openTarget(path: string, widen: boolean): Rooted<DirectoryState> {
  try {
    return openRooted<DirectoryState>(path, { widen })
  } catch (error) {
    throw wrapError(error, path)
  }
}

/** Counts, and looks at the flag, between the reader and the applier. */
export class SupervisedApplier implements TarHandler {
  readonly #applier: LayerApplier
  readonly #control: Control
  readonly #maxEntries: number
  readonly #maxBytes: number
  readonly #maxRatio: number
  readonly #blobSize: number
  readonly #subject: string
  readonly #sums: SlotSums | undefined
  #isSummed = false

  constructor(
    applier: LayerApplier,
    control: Control,
    { maxEntries = Infinity, maxBytes = Infinity, maxRatio = Infinity }: Limits,
    blobSize: number,
    subject: string,
    sums?: SlotSums,
  ) {
    this.#sums = sums
    this.#applier = applier
    this.#control = control
    this.#maxEntries = maxEntries
    this.#maxBytes = maxBytes
    this.#maxRatio = maxRatio
    this.#blobSize = blobSize
    this.#subject = subject
  }

  entry(header: TarHeader): void {
    const control = this.#control
    control.throwIfAborted(this.#subject)
    const entries = this.#applier.entries + 1
    if (entries > this.#maxEntries)
      this.#exceeded('number of entries', entries, this.#maxEntries)
    this.#checkFileBytes(this.#applier.fileBytes + header.size)
    control.entries = entries
    this.#isSummed = this.#sums !== undefined && isSummedAhead(header)
    this.#applier.entry(header)
    control.fileBytes = this.#applier.fileBytes
  }

  data(chunk: Buffer, offset: number): void {
    this.#applier.data(chunk, offset)
  }

  endEntry(): void {
    // in order: also of what isn't written, as the body of a whiteout
    this.#applier.endEntry(this.#isSummed ? this.#sums?.next() : undefined)
  }

  warn(code: TarWarning, message: string, header?: TarHeader): void {
    this.#applier.warn(code, message, header)
  }
  /** Holes cost nothing in the layer and nothing on disk, but whoever reads the file later pays. */
  #checkFileBytes(fileBytes: number): void {
    const what = 'size of the files with their holes'
    if (fileBytes > this.#maxBytes) this.#exceeded(what, fileBytes, this.#maxBytes)
    const ratio = fileBytes / this.#blobSize
    if (fileBytes > RATIO_FLOOR && ratio > this.#maxRatio)
      this.#exceeded(`ratio of the blob to the ${what}`, Math.ceil(ratio), this.#maxRatio)
  }

  #exceeded(limit: string, value: number, maximum: number): never {
    throw createError('LIMIT_EXCEEDED', { subject: this.#subject, limit, value, maximum })
  }
}
