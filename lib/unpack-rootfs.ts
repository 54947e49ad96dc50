// Unpack without a bundle: the layers of an image become a directory tree, and nothing else is made. The run has a
// private bundle beside it all the same, for what middleware keeps in one.
import { randomBytes } from 'node:crypto'
import {
  access,
  chmod,
  chown,
  constants,
  lstat,
  mkdir,
  readdir,
  realpath,
  utimes,
} from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import type { Koci } from './application.ts'
import { Bundle } from './bundle/bundle.ts'
import { resetTreeRoot } from './bundle/rootfs.ts'
import { Context } from './context.ts'
import { createError, wrapError } from './errors.ts'
import {
  close,
  cstring,
  O_CLOEXEC,
  O_DIRECTORY,
  O_NOFOLLOW,
  O_RDONLY,
  open,
} from './fs/libc.ts'
import { emptyDirectory, removeTree } from './fs/walk.ts'
import { Extraction, type Mapping } from './layer/extraction.ts'
import { isEmpty } from './layer/is-empty.ts'
import type { Layer } from './layer/layer.ts'
import { openImage, type ImageOptions } from './layout/open-image.ts'
import { placeLayers } from './place-layers.ts'
import { runOnce } from './run.ts'
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
 * unpacked by then stays: it can't be told from what was there.
 * @throws {UsageError} ERR_KOCI_LAYERING_CONFLICT if a driver stacks layers; and as {@link Koci.unpack}
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
    const undo = await takeDirectory(rootfs)
    run.defer(async () => {
      const left = await undo()
      if (left) run.app.tell('warning', { run: run.id, ...left })
    })
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

/** Makes the directory, or takes the one that is there; returns what undoes that, and tells what it couldn't. */
async function takeDirectory(
  rootfs: string,
): Promise<() => Promise<{ code: string; message: string } | undefined>> {
  try {
    const found = await lstat(rootfs).catch(() => undefined)
    if (!found) {
      const made = await mkdir(rootfs, { recursive: true })
      return async () => {
        removeMade(made ?? rootfs)
        return undefined
      }
    }
    if (!found.isDirectory())
      throw createError('CLOBBER', {
        subject: rootfs,
        remedy: 'unpack into another directory; this is none',
      })
    const names = await readdir(rootfs)
    return async () => {
      if (names.length > 0) {
        const message = `${rootfs}: it was not empty, so what was unpacked by now stays in it`
        return { code: 'PARTLY_UNPACKED', message }
      }
      emptyAgain(rootfs)
      await chmod(rootfs, found.mode & 0o7777)
      if (process.geteuid?.() === 0) await chown(rootfs, found.uid, found.gid)
      await utimes(rootfs, found.atime, found.mtime)
      return undefined
    }
  } catch (error) {
    throw wrapError(error, rootfs)
  }
}

function removeMade(directory: string): void {
  const parent = openDirectory(path.dirname(directory))
  try {
    removeTree(parent, cstring(path.basename(directory)))
  } finally {
    close(parent)
  }
}

function emptyAgain(directory: string): void {
  const fd = openDirectory(directory, O_NOFOLLOW)
  try {
    emptyDirectory(fd)
  } finally {
    close(fd)
  }
}

function openDirectory(directory: string, flags = 0): number {
  return open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC | flags)
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
