// A tar file becomes a layer, byte for byte.
import { constants } from 'node:fs'
import { open } from 'node:fs/promises'
import { createError, wrapError } from '../errors.ts'
import type { Warning } from '../events.ts'
import { addLayer, type ChangeOptions } from '../layout/change-image.ts'
import type { ResolvedImage } from '../layout/image-layout.ts'
import { looksLike } from './sniff.ts'
import { chooseCompression, storeLayer, type Compress } from './write-layer-blob.ts'

/** Which file, and how it is stored. */
export interface AddLayerOptions extends ChangeOptions {
  /** An uncompressed tar; a pipe may be read from, too. */
  readonly file: string
  /** `auto` takes what the newest layer of the image has. @default 'auto' */
  readonly compress?: Compress | undefined
  /** Of the new layer's descriptor. */
  readonly annotations?: Readonly<Record<string, string>> | undefined
  readonly warn?: ((warning: Warning) => void) | undefined
}

const pieceSize = 1 << 20
const blockSize = 512

/**
 * Puts a file on top of an image as it is. Only its beginning is looked at: what isn't a tar is added with a warning.
 * @throws {UsageError} ERR_KOCI_INVALID_OPTION for a directory; {SystemError} ERR_KOCI_IO, ERR_KOCI_ABORTED
 */
export function addLayerFile(options: AddLayerOptions): Promise<ResolvedImage> {
  const { compress = 'auto', annotations } = options
  return addLayer(options, async ({ layout, manifest }) => {
    const compression = chooseCompression(compress, manifest)
    const layer = await storeLayer(layout, compression, sink => copy(options, sink))
    return { ...layer, annotations }
  })
}

async function copy(
  { file, signal, warn }: AddLayerOptions,
  sink: (chunk: Buffer) => Promise<void> | void,
): Promise<void> {
  const handle = await open(file, constants.O_RDONLY).catch(error => {
    throw wrapError(error, file)
  })
  try {
    if ((await handle.stat()).isDirectory())
      throw createError('INVALID_OPTION', {
        subject: file,
        reason: 'it is a directory - give a tar file, or use koci insert',
      })
    for (let isFirst = true; ; isFirst = false) {
      if (signal?.aborted) throw createError('ABORTED', { subject: file }, signal.reason)
      // the sink keeps what it gets
      const piece = Buffer.allocUnsafe(pieceSize)
      const { bytesRead } = await handle.read(piece, 0, piece.length)
      const bytes = piece.subarray(0, bytesRead)
      if (isFirst && !isTar(bytes))
        warn?.({ code: 'NOT_A_TAR', message: `${file}: not a tar archive${looksLike(bytes)}` })
      if (bytesRead === 0) return
      await sink(bytes)
    }
  } catch (error) {
    throw wrapError(error, file)
  } finally {
    await handle.close()
  }
}

/** Whether the first block is a header with the right checksum, or the end of an archive. */
function isTar(bytes: Buffer): boolean {
  const block = bytes.subarray(0, blockSize)
  if (block.length < blockSize) return false
  if (block.every(byte => byte === 0)) return true
  const field = block.toString('latin1', 148, 156).replaceAll(/[\0 ]/g, '')
  const others = block.reduce((sum, byte, at) => (at >= 148 && at < 156 ? sum : sum + byte), 0)
  return /^[0-7]+$/.test(field) && Number.parseInt(field, 8) === others + 8 * 0x20
}
