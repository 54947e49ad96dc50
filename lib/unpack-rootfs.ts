// Unpack without a bundle: the layers of an image become a directory tree, and nothing else is made. The run has a
// private bundle beside it all the same, for what middleware keeps in one.
import { randomBytes } from 'node:crypto'
import type { Stats } from 'node:fs'
import {
  access,
  constants,
  lstat,
  open,
  readdir,
  realpath,
  type FileHandle,
} from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import type { Koci } from './application.ts'
import { Bundle } from './bundle/bundle.ts'
import { makeLocked, removeEmpty } from './bundle/directories.ts'
import { resetTreeRoot } from './bundle/rootfs.ts'
import { Context } from './context.ts'
import { createError, wrapError } from './errors.ts'
import { emptyDirectory } from './fs/walk.ts'
import { Extraction, type Mapping } from './layer/extraction.ts'
import { isEmpty } from './layer/is-empty.ts'
import type { Layer } from './layer/layer.ts'
import { openImage, type ImageOptions } from './layout/open-image.ts'
import { placeLayers } from './place-layers.ts'
import { runOnce, type Run } from './run.ts'
import { layersOf } from './unpack.ts'

/** What to unpack, and where. */
export interface UnpackRootfsOptions extends ImageOptions, Mapping {
  /** A directory to make; one that exists is unpacked into. */
  readonly rootfs: string
  readonly signal?: AbortSignal | undefined
}

/** What was unpacked. */
export interface UnpackRootfsResult {
  /** Absolute. */
  readonly rootfs: string
  /** Base first. */
  readonly layers: readonly Layer[]
}

/**
 * Applies the layers of an image to a directory, through the steps `unpack`, `locate` and `layer` of the application.
 * On failure a directory that was made is removed, one that was empty is empty again. In one that wasn't, what has been
 * unpacked by then stays: it can't be told from what was there. Parents that were made are removed if they are empty. The
 * directory is locked meanwhile.
 * @throws {UsageError} ERR_KOCI_LAYERING_CONFLICT if a driver stacks layers; {ConflictError} ERR_KOCI_LOCKED if another
 * koci is unpacking into the directory, ERR_KOCI_CLOBBER if it isn't one; and as {@link Koci.unpack}
 */
export function unpackRootfs(
  app: Koci,
  options: UnpackRootfsOptions,
): Promise<UnpackRootfsResult> {
  return runOnce(app, options.rootfs, options.signal, async run => {
    // a link to a directory is as good as the directory
    const absolute = path.resolve(options.rootfs)
    const rootfs = await realpath(absolute).catch(() => absolute)
    const image = await openImage(options)
    run.closing(() => image.layout.close())
    await takeDirectory(rootfs, run)
    const bundle = await Bundle.begin(await privatePath(rootfs), rootfs)
    run.closing(async () => {
      await bundle.rollback()
      bundle.release()
    })

    const layers = layersOf(image)
    const extraction = new Extraction(options)
    const context = new Context({ ...run.shared, image, bundle, layers, extraction })
    app.tell('unpack:start', { run: run.id, bundle: rootfs, layers })
    let isDone = false
    await app.step('unpack', run, context, async () => {
      extraction.seal()
      if (extraction.layering !== 'merged')
        throw createError('LAYERING_CONFLICT', {
          subject: `unpack into ${rootfs}`,
          wanted: 'merged layers',
          other: extraction.chosenBy ?? '',
          chosen: `${extraction.layering} layers`,
        })
      // on top of layers that are there already the root is as they left it
      if (!image.selected?.first || (await isEmpty(rootfs)))
        await resetTreeRoot(rootfs, extraction)
      await placeLayers(run, context)
      isDone = true
    })
    if (!isDone)
      throw createError('NOT_UNPACKED', { subject: rootfs, chain: app.describeChain() })
    run.signal.throwIfAborted()
    app.tell('unpack:done', { run: run.id, bundle: rootfs })
    return { rootfs, layers }
  })
}

/** Makes the directory, or takes the one that is there, and locks it until the end of the run; undone if the run fails. */
async function takeDirectory(rootfs: string, run: Run): Promise<void> {
  const before = await lstat(rootfs).catch(() => undefined)
  if (before && !before.isDirectory())
    throw createError('CLOBBER', {
      subject: rootfs,
      remedy: 'unpack into another directory; this is none',
    })
  const { lock, made } = await makeLocked(rootfs, 0o777)
  let isUndone = false
  run.closing(async () => {
    // only now is the private bundle gone, which is beside it; what somebody else put there stays
    if (isUndone) await removeEmpty(made)
    lock.release()
  })
  run.defer(() => {
    isUndone = true
  })
  try {
    const directory = await open(
      rootfs,
      constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW,
    )
    run.closing(() => directory.close())
    const found = await directory.stat()
    // only now that it is locked: another koci may have been quicker
    const names = await readdir(rootfs)
    run.defer(() => (names.length > 0 ? tellLeft(rootfs, run) : emptyAgain(directory, found)))
  } catch (error) {
    throw wrapError(error, rootfs)
  }
}

function tellLeft(rootfs: string, { app, id }: Run): void {
  const message = `${rootfs}: it was not empty, so what was unpacked by now stays in it`
  app.tell('warning', { run: id, code: 'PARTLY_UNPACKED', message })
}

async function emptyAgain(directory: FileHandle, before: Stats): Promise<void> {
  // the image may have made it one that even its owner can't write in
  await directory.chmod(0o700).catch(() => {})
  emptyDirectory(directory.fd)
  await directory.chmod(before.mode & 0o7777)
  if (process.geteuid?.() === 0) await directory.chown(before.uid, before.gid)
  await directory.utimes(before.atime, before.mtime)
}

/** A name for the private bundle: beside the directory, so that what is put there is on the same file system. */
async function privatePath(rootfs: string): Promise<string> {
  const name = `.koci-unpack-${randomBytes(6).toString('hex')}`
  const parent = path.dirname(rootfs)
  const isWritable = await access(parent, constants.W_OK).then(
    () => true,
    () => false,
  )
  return path.join(isWritable ? parent : tmpdir(), name)
}
