// What the command lines work on: a layout with good and bad images, and some files.
import { spawnSync } from 'node:child_process'
import {
  chmodSync,
  lutimesSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import path from 'node:path'
import { digestOf } from '../../lib/oci/digest.ts'
import type { ImageDraft } from '../../lib/oci/image-draft.ts'
import { makeImage, type TestImage, type TestLayer } from '../support/image.ts'
import { tarBytes } from '../support/tar-builder.ts'

const mtime = 1_600_000_000

const layers: readonly TestLayer[] = [
  [
    { name: './', type: 'directory', mode: 0o755, mtime },
    { name: 'etc/', type: 'directory', mode: 0o755, mtime },
    { name: 'etc/passwd', body: 'root:x:0:0::/root:/bin/sh\nweb:x:5:6::/srv:/bin/sh\n', mtime },
    { name: 'etc/motd', body: 'hello\n', mtime },
    { name: 'etc/link', type: 'symlink', linkname: 'motd', mtime },
    { name: 'data/', type: 'directory', mode: 0o755, mtime },
    { name: 'data/kept', body: 'kept', mtime },
    { name: 'gone/', type: 'directory', mode: 0o755, mtime },
    { name: 'gone/file', body: 'x', mtime },
  ],
  [
    { name: 'etc/', type: 'directory', mode: 0o750, mtime: mtime + 1 },
    { name: 'etc/.wh.link' },
    { name: 'etc/motd', body: 'hello again\n', mode: 0o600, mtime: mtime + 1 },
  ],
]

const small = {
  Env: ['PATH=/usr/bin', 'A=0'],
  Cmd: ['sh'],
  Volumes: { '/data': {} },
  Labels: { kept: 'yes' },
}

const full = {
  User: 'web',
  ExposedPorts: { '53/udp': {}, '80/tcp': {} },
  Env: ['PATH=/usr/bin', 'EMPTY='],
  Entrypoint: ['/bin/server', '--flag'],
  Cmd: ['a b', 'c'],
  Volumes: { '/data': {}, '/var': {} },
  WorkingDir: '/srv',
  Labels: { a: '<&>', 'org.example': 'x' },
  StopSignal: 'SIGTERM',
}

/** umoci 0.4.7 panics at a history without times; and what it writes has the author second. */
function dated(draft: ImageDraft): ImageDraft {
  const { created, ...rest } = draft.config
  const history = rest.history?.map(entry => ({ created: '2026-01-01T00:00:00Z', ...entry }))
  const config = { ...(created ? { created } : {}), author: 'somebody', ...rest }
  return { ...draft, config: { ...config, ...(history ? { history } : {}) } }
}

const images: Readonly<Record<string, TestImage>> = {
  base: { layers, config: small, change: dated },
  latest: { layers: layers.slice(0, 1), config: {}, change: dated },
  empty: { layers: [], config: {} },
  full: {
    layers,
    config: full,
    change: draft => ({
      ...dated(draft),
      manifest: { ...draft.manifest, annotations: { a: 'b', 'org.example': '<' } },
    }),
  },
  undated: { layers, config: small },
  unknown: { layers, config: { ...small, Healthcheck: { Test: ['NONE'] } }, change: dated },
  variant: {
    layers,
    config: small,
    change: draft => dated({ ...draft, config: { ...draft.config, variant: 'v9' } }),
  },
  baduser: { layers, config: { User: 'nobody-knows' }, change: dated },
  dirlinks: {
    layers: [
      [
        { name: 'usr/', type: 'directory', mtime },
        { name: 'usr/bin/', type: 'directory', mtime },
        { name: 'bin', type: 'symlink', linkname: 'usr/bin', mtime },
      ],
      [
        { name: 'bin/', type: 'directory', mtime },
        { name: 'bin/sh', body: '#!', mtime },
      ],
    ],
    config: {},
    change: dated,
  },
}

/** With layers of another media type. */
function ofType(draft: ImageDraft, mediaType: string): ImageDraft {
  const layers = draft.manifest.layers.map(layer => ({ ...layer, mediaType }))
  return { ...draft, manifest: { ...draft.manifest, layers } }
}

/** In a layout of their own, where no collection of garbage meets them. */
const badImages: Readonly<Record<string, TestImage>> = {
  climbing: { layers: [[{ name: '../x', body: 'x' }]], config: {}, change: dated },
  foreign: {
    layers,
    config: {},
    change: draft => dated(ofType(draft, 'application/x-foreign')),
  },
  lz4: {
    layers,
    config: {},
    change: draft => dated(ofType(draft, 'application/vnd.oci.image.layer.v1.tar+lz4')),
  },
  nolayers: {
    layers: layers.slice(0, 1),
    config: {},
    change: draft => ({
      ...draft,
      config: { ...draft.config, rootfs: { type: 'layers', diff_ids: [] } },
    }),
  },
  corrupt: { layers: [[{ name: 'corrupt', body: 'x' }]], config: {}, change: dated },
  wrongid: {
    layers: [[{ name: 'wrongid', body: 'x' }]],
    config: {},
    change: draft => ({
      ...draft,
      config: {
        ...draft.config,
        rootfs: { type: 'layers', diff_ids: [digestOf(Buffer.from('another'))] },
      },
    }),
  },
}

/** Makes the directory that every command line gets a copy of. */
export async function makeFixture(directory: string): Promise<void> {
  const at = (...names: string[]): string => path.join(directory, ...names)
  mkdirSync(at('src/dir'), { recursive: true })
  for (const [refName, image] of Object.entries(images))
    await makeImage(at('images'), refName, image)
  for (const [refName, image] of Object.entries(badImages))
    await makeImage(at('bad'), refName, image)
  const index = JSON.parse(readFileSync(at('images/index.json'), 'utf8'))
  for (const entry of index.manifests.slice(0, 2)) {
    const annotations = { 'org.opencontainers.image.ref.name': 'twice' }
    index.manifests.push({ ...entry, annotations })
  }
  index.manifests.push({ ...index.manifests[0], annotations: undefined })
  writeFileSync(at('images/index.json'), JSON.stringify(index))
  spoil(at('bad'), 'corrupt')

  for (const [name, layoutVersion] of [
    ['broken', undefined],
    ['futuristic', '2.0.0'],
  ] as const) {
    mkdirSync(at(name, 'blobs/sha256'), { recursive: true })
    writeFileSync(at(name, 'index.json'), '{"schemaVersion":2,"manifests":[]}')
    if (layoutVersion === undefined) continue
    const content = JSON.stringify({ imageLayoutVersion: layoutVersion })
    writeFileSync(at(name, 'oci-layout'), content)
  }
  writeFileSync(at('file'), 'a file\n')
  writeFileSync(at('layer.tar'), tarBytes([{ name: 'added', body: 'added\n', mtime }]))
  writeFileSync(at('src/file'), 'content\n')
  writeFileSync(at('src/dir/empty'), '')
  symlinkSync('file', at('src/link'))
  lutimesSync(at('src/link'), mtime, mtime)
  chmodSync(at('src/file'), 0o751)
  mkdirSync(at('hidden'))
  writeFileSync(at('hidden/.wh.x'), 'x')
  for (const name of ['src/file', 'src/dir/empty', 'src/dir', 'src'])
    utimesSync(at(name), mtime, mtime)
}

/** Spoils the layer of an image. */
function spoil(images: string, refName: string): void {
  const read = (digest: string): string =>
    readFileSync(path.join(images, 'blobs', digest.replace(':', '/')), 'utf8')
  const { manifests } = JSON.parse(readFileSync(path.join(images, 'index.json'), 'utf8'))
  const entry = manifests.find(
    (each: { annotations?: Record<string, string> }) =>
      each.annotations?.['org.opencontainers.image.ref.name'] === refName,
  )
  const [layer] = JSON.parse(read(entry.digest)).layers
  const file = path.join(images, 'blobs', layer.digest.replace(':', '/'))
  const { size } = statSync(file)
  writeFileSync(file, Buffer.alloc(size, 'x'))
}

/** A copy with all times. */
export function copyFixture(fixture: string, directory: string): void {
  const { status, stderr } = spawnSync('cp', ['-a', fixture, directory], { timeout: 60_000 })
  if (status !== 0) throw new Error(String(stderr))
}

/** What may happen between two command lines. */
export const steps: Readonly<Record<string, (cwd: string) => void>> = {
  '!edit': cwd => {
    const at = (...names: string[]): string => path.join(cwd, 'b/rootfs', ...names)
    mkdirSync(at('etc'), { recursive: true })
    mkdirSync(at('added/below'), { recursive: true })
    mkdirSync(at('data'), { recursive: true })
    writeFileSync(at('added/below/file'), 'new\n')
    writeFileSync(at('etc/motd'), 'changed\n')
    writeFileSync(at('data/new'), 'in a volume\n')
    symlinkSync('/nowhere', at('added/link'))
    lutimesSync(at('added/link'), mtime + 9, mtime + 9)
    rmSync(at('gone'), { recursive: true, force: true })
    for (const name of [
      'added/below/file',
      'added/below',
      'added',
      'etc/motd',
      'etc',
      'data/new',
      'data',
      '',
    ])
      utimesSync(at(name), mtime + 9, mtime + 9)
  },
  '!rootfs': cwd => {
    mkdirSync(path.join(cwd, 'b/rootfs'), { recursive: true })
    writeFileSync(path.join(cwd, 'b/rootfs/mine'), 'mine\n')
  },
  '!tree': cwd => {
    mkdirSync(path.join(cwd, 'r/etc'), { recursive: true })
    writeFileSync(path.join(cwd, 'r/etc/link'), 'in the way')
    writeFileSync(path.join(cwd, 'r/mine'), 'mine')
    utimesSync(path.join(cwd, 'r/mine'), mtime, mtime)
  },
  '!empty': cwd => mkdirSync(path.join(cwd, 'r')),
  '!stray': cwd => writeFileSync(path.join(cwd, 'images/blobs/sha256/stray'), 'x'),
}

/** Names in a directory, none if there is none. */
export function namesIn(directory: string): string[] {
  try {
    return readdirSync(directory)
  } catch {
    return []
  }
}
