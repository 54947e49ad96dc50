// What a command line left, in a form in which two programs can be compared: texts byte for byte, but for the moment at
// which something was made, and for digests and sizes of what compresses or dates differently.
import { existsSync, readFileSync } from 'node:fs'
import path from 'node:path'
import { gunzipSync } from 'node:zlib'
import { describeTree } from '../support/tree.ts'
import { bodyOf, collectTar } from '../support/collect-tar.ts'
import { namesIn } from './fixture.ts'

const start = new Date(Date.now() - 60_000).toISOString()

/** Everything in a directory, to see that a failure changed nothing. */
export function untouched(cwd: string): string[] {
  // not times of directories: private files come and go in them
  return describeTree(cwd, { root: false, directoryTimes: false })
}

/** What a successful command line left and printed. */
export function observe(
  { cwd, stdout }: { readonly cwd: string; readonly stdout: string },
  lines: string,
): unknown {
  const images = lines.includes('--layout new')
    ? path.join(cwd, 'new')
    : path.join(cwd, 'images')
  return {
    stdout: stdoutOf(stdout, lines),
    names: namesIn(cwd).filter(name => !name.startsWith('.')),
    ...(existsSync(path.join(images, 'index.json')) ? { images: layoutOf(images) } : {}),
    bundle: bundleOf(path.join(cwd, lines.includes('new/b') ? 'new/b' : 'b')),
    rootfs: namesIn(path.join(cwd, 'r')).length > 0 && treeOf(path.join(cwd, 'r')),
    config: runtimeConfigOf(path.join(cwd, 'config.json')),
    src: describeTree(path.join(cwd, 'src')),
  }
}

function stdoutOf(stdout: string, lines: string): unknown {
  if (lines.includes('stat --json') || lines.endsWith('--json'))
    return (JSON.parse(stdout) as { history: unknown }).history
  return /(^|; )(ls|list) /.test(lines) ? stdout : undefined
}

interface Mount {
  readonly destination: string
}

interface Described {
  readonly digest: string
  readonly mediaType: string
}

function layoutOf(images: string): unknown {
  const index = JSON.parse(readFileSync(path.join(images, 'index.json'), 'utf8'))
  const blob = ({ digest }: Described): Buffer =>
    readFileSync(path.join(images, 'blobs', digest.replace(':', '/')))
  // 0.4.7 writes null for none
  const entries = (index.manifests ?? []).map((entry: Described & { annotations?: object }) => {
    const manifest = blob(entry)
    const { config, layers } = JSON.parse(manifest.toString())
    return {
      annotations: entry.annotations,
      // 0.4.7 leaves the media type out
      manifest: plain(manifest.toString()).replace(
        /^(\{"schemaVersion":2),"mediaType":"[^"]+"/,
        '$1',
      ),
      config: plain(blob(config).toString()),
      layers: layers.map((layer: Described) => layerOf(blob(layer), layer)),
    }
  })
  return {
    layout: JSON.parse(readFileSync(path.join(images, 'oci-layout'), 'utf8')),
    entries,
    blobs: namesIn(path.join(images, 'blobs/sha256')).length,
    names: namesIn(images).sort(),
  }
}

/** Without what depends on the time, or on how something is compressed. */
function plain(text: string): string {
  return text
    .replaceAll(/"\d{4}-\d\d-\d\dT[\d:.]+(Z|[+-]\d\d:\d\d)"/g, time =>
      time.slice(1) > start ? '"NOW"' : time,
    )
    .replaceAll(/sha256:[0-9a-f]{64}/g, 'DIGEST')
    .replaceAll(/"size":\d+/g, '"size":N')
    .replaceAll(/,"annotations":\{"ci\.umo\.uncompressed_blob_size":"\d+"\}/g, '')
}

function layerOf(bytes: Buffer, { mediaType }: Described): unknown {
  let tar = bytes
  try {
    if (mediaType.endsWith('+gzip')) tar = gunzipSync(bytes)
  } catch {
    return 'corrupt'
  }
  const { entries } = collectTar(tar)
  return entries.map(entry => {
    const { header } = entry
    const { rawPath, type, mode, uid, gid, mtime, rawLinkname } = header
    return [
      rawPath
        .toString('latin1')
        .replace(/^(\.|\/)?\/?$/, '.')
        .replace(/\/$/, ''),
      type,
      mode.toString(8),
      `${uid}:${gid}`,
      mtime / 1_000_000_000n,
      rawLinkname.toString('latin1'),
      bodyOf(entry).toString('latin1'),
    ].join(' ')
  })
}

function bundleOf(bundle: string): unknown {
  if (!existsSync(path.join(bundle, 'rootfs'))) return namesIn(bundle)
  const umoci = path.join(bundle, 'umoci.json')
  const { map_options, from_descriptor_path } = existsSync(umoci)
    ? JSON.parse(readFileSync(umoci, 'utf8'))
    : {}
  return {
    tree: treeOf(path.join(bundle, 'rootfs')),
    config: runtimeConfigOf(path.join(bundle, 'config.json')),
    mapping: map_options,
    from: plain(JSON.stringify(from_descriptor_path)),
    // koci's own files are beside umoci's
    names: namesIn(bundle)
      .filter(name => name !== 'koci.json' && !name.endsWith('.stat'))
      .map(name => name.replace(/[0-9a-f]{64}/, 'DIGEST'))
      .sort(),
  }
}

/** Times of directories that no layer has are those of the moment. */
function treeOf(directory: string): string[] {
  return describeTree(directory, { directoryTimes: false })
}

/** Without what newer specifications have, and 0.4.7 does wrong. */
function runtimeConfigOf(file: string): unknown {
  if (!existsSync(file)) return undefined
  const {
    ociVersion: _,
    annotations: _1,
    process,
    ...rest
  } = JSON.parse(readFileSync(file, 'utf8'))
  rest.linux.namespaces = rest.linux.namespaces.filter(
    ({ type }: { type: string }) => type !== 'cgroup',
  )
  // 0.4.7 has volumes in any order
  rest.mounts.sort((a: Mount, b: Mount) => (a.destination < b.destination ? -1 : 1))
  for (const mount of rest.mounts)
    if (mount.destination === '/etc/resolv.conf')
      mount.options = mount.options.filter((flag: string) => flag !== 'relatime')
  return { ...rest, process: { ...process, env: process.env.toSorted() } }
}
