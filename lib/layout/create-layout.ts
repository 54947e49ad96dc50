// Making an empty layout: put together under a private name, then renamed, so that it is there complete or not at all.
import { randomBytes } from 'node:crypto'
import { mkdir, open, rm } from 'node:fs/promises'
import { basename, dirname, join, resolve } from 'node:path'
import { exists } from '../bundle/directories.ts'
import { createError, wrapError } from '../errors.ts'
import { encodeJson } from '../oci/json.ts'
import { ociTypes } from '../oci/media-type.ts'
import { adopt, renameNewDirectory, syncDirectory } from './new-file.ts'

/**
 * Makes an empty layout; missing parents are made, too. The path becomes a complete layout at once.
 * @throws {ConflictError} ERR_KOCI_CLOBBER something is there
 */
export async function createLayout(path: string): Promise<void> {
  const root = resolve(path)
  const parent = dirname(root)
  const draft = join(parent, `.${basename(root)}.koci-${randomBytes(8).toString('hex')}`)
  // before anything is made; what comes to be there later is noticed in the end
  if (await exists(root))
    throw createError('CLOBBER', { subject: path, remedy: 'choose another path' })
  try {
    await mkdir(parent, { recursive: true, mode: 0o755 })
  } catch (error) {
    throw wrapError(error, path)
  }
  try {
    await mkdir(draft, 0o755)
    await mkdir(join(draft, 'blobs', 'sha256'), { recursive: true })
    await writeSynced(draft, 'oci-layout', { imageLayoutVersion: '1.0.0' })
    const index = { schemaVersion: 2, mediaType: ociTypes.index, manifests: [] }
    await writeSynced(draft, 'index.json', index)
    await syncDirectory(draft)
    await renameNewDirectory(draft, root)
    await syncDirectory(parent)
  } catch (error) {
    await rm(draft, { recursive: true, force: true })
    throw wrapError(error, path)
  }
}

async function writeSynced(directory: string, name: string, document: unknown): Promise<void> {
  const handle = await open(join(directory, name), 'wx', 0o600)
  try {
    await adopt(directory, handle)
    await handle.writeFile(encodeJson(document))
    await handle.sync()
  } finally {
    await handle.close()
  }
}
