// Layouts made by hand, so that tests of reading don't rest on our own writing.
import { createHash } from 'node:crypto'
import {
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import { parseDescriptor, type Descriptor, type Platform } from '../../../lib/oci/descriptor.ts'
import { dockerTypes, ociTypes } from '../../../lib/oci/media-type.ts'
import { tarBytes } from '../../support/tar-builder.ts'

/** The annotation of tags. */
export const refName = 'org.opencontainers.image.ref.name'

type Json = Record<string, unknown>

/** An empty layout. */
export function makeLayout(dir: string): string {
  mkdirSync(join(dir, 'blobs/sha256'), { recursive: true })
  writeFileSync(join(dir, 'oci-layout'), '{"imageLayoutVersion":"1.0.0"}')
  writeIndex(dir, [])
  return dir
}

/** index.json with these entries, and more fields. */
export function writeIndex(dir: string, manifests: readonly unknown[], more: Json = {}): void {
  const index = { schemaVersion: 2, mediaType: ociTypes.index, manifests, ...more }
  writeFileSync(join(dir, 'index.json'), JSON.stringify(index))
}

/** Stores a blob; documents are encoded. */
export function addBlob(
  dir: string,
  mediaType: string,
  content: Buffer | string | object,
  algorithm: 'sha256' | 'sha512' = 'sha256',
): Descriptor {
  const isRaw = Buffer.isBuffer(content) || typeof content === 'string'
  const bytes = Buffer.from(isRaw ? content : JSON.stringify(content))
  const encoded = createHash(algorithm).update(bytes).digest('hex')
  mkdirSync(join(dir, 'blobs', algorithm), { recursive: true })
  writeFileSync(join(dir, 'blobs', algorithm, encoded), bytes)
  return parseDescriptor(
    { mediaType, digest: `${algorithm}:${encoded}`, size: bytes.length },
    'x',
  )
}

/** Where the blob of a descriptor is. */
export function fileOf(dir: string, { digest }: { digest: string }): string {
  return join(dir, 'blobs', ...digest.split(':'))
}

/** The tar of a layer with one file. */
export function layerTar(content: string): Buffer {
  return tarBytes([{ name: 'file', body: content }])
}

/** What {@link addImage} takes. */
export interface ImageSpec {
  readonly layers?: readonly string[]
  readonly docker?: boolean
  readonly algorithm?: 'sha256' | 'sha512'
  readonly platform?: Platform
  /** Fields of the documents, over the usual ones. */
  readonly manifest?: Json
  readonly config?: Json
}

/** Stores an image whose layers hold one file each; gives the manifest's descriptor. */
export function addImage(dir: string, spec: ImageSpec = {}): Descriptor {
  const { layers = ['one'], docker = false, algorithm = 'sha256', platform } = spec
  const types = docker ? dockerTypes : ociTypes
  const layerType = docker
    ? 'application/vnd.docker.image.rootfs.diff.tar.gzip'
    : 'application/vnd.oci.image.layer.v1.tar+gzip'
  const { os = 'linux', architecture = 'amd64' } = platform ?? {}
  const config = addBlob(
    dir,
    types.config,
    {
      architecture,
      os,
      ...(platform?.variant ? { variant: platform.variant } : {}),
      config: { Cmd: ['sh'] },
      rootfs: {
        type: 'layers',
        diff_ids: layers.map(content => digestText(layerTar(content), algorithm)),
      },
      ...spec.config,
    },
    algorithm,
  )
  const blobs = layers.map(content =>
    addBlob(dir, layerType, gzipSync(layerTar(content)), algorithm),
  )
  const manifest = { schemaVersion: 2, mediaType: types.manifest, config, layers: blobs }
  return addBlob(dir, types.manifest, { ...manifest, ...spec.manifest }, algorithm)
}

/** A layout with one image under the tag `latest`. */
export function makeImage(dir: string, spec: ImageSpec = {}): Descriptor {
  makeLayout(dir)
  const descriptor = addImage(dir, spec)
  writeIndex(dir, [tagged(descriptor, 'latest')])
  return descriptor
}

/** A descriptor with a tag. */
export function tagged(descriptor: Descriptor, name: string): Descriptor {
  return { ...descriptor, annotations: { ...descriptor.annotations, [refName]: name } }
}

/** The parsed content of a JSON file. */
export function readJson(path: string): Json {
  return JSON.parse(readFileSync(path, 'utf8')) as Json
}

/** The parsed document of a blob. */
export function blobJson(dir: string, descriptor: { digest: string }): Json {
  return readJson(fileOf(dir, descriptor))
}

/** Every file below a directory with what tells that it was touched. */
export function snapshot(dir: string): string[] {
  if (!existsSync(dir)) return []
  if (!lstatSync(dir).isDirectory()) return ['not a directory']
  return readdirSync(dir, { recursive: true, encoding: 'utf8' })
    .sort()
    .map(name => {
      const { mode, size, ino, mtimeMs } = lstatSync(join(dir, name))
      return `${name} ${mode} ${size} ${ino} ${mtimeMs}`
    })
}

/** Digest of bytes as text. */
export function digestText(bytes: Buffer, algorithm = 'sha256'): string {
  return `${algorithm}:${createHash(algorithm).update(bytes).digest('hex')}`
}
