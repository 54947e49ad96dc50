// `koci stat` for people: blocks with tabs, in umoci's manner, and the history as a table.
import type { Descriptor } from '../../lib/oci/descriptor.ts'
import type { ImageConfig } from '../../lib/oci/image-config.ts'
import { hexDump, humanSize, quote } from './go-text.ts'
import type { HistoryRow, ImageStat } from './read-stat.ts'

/** The whole text, with its last line feed. */
export function toText(stat: ImageStat): string {
  const blocks = [['== MANIFEST ==', ...manifestLines(stat)]]
  if (stat.config) blocks.push(['== CONFIG ==', ...configLines(stat)])
  if (stat.history) blocks.push(['== HISTORY ==', ...historyTable(stat.history)])
  return blocks.map(lines => `${lines.join('\n')}\n`).join('\n')
}

function manifestLines({ manifest, descriptor }: ImageStat): string[] {
  const { schemaVersion, artifactType, config, layers, subject, annotations } = manifest
  return [
    `Schema Version: ${schemaVersion}`,
    `Media Type: ${quote(manifest.mediaType ?? descriptor.mediaType, 'precise')}`,
    ...field('Artifact Type', artifactType),
    'Config:',
    ...indent(descriptorLines(config)),
    ...(layers.length > 0 ? ['Layers:', ...indent(layers.flatMap(descriptorLines))] : []),
    ...(subject ? ['Subject:', ...indent(descriptorLines(subject))] : []),
    ...mapLines('Annotations', annotations),
    ...descriptorLines(descriptor),
  ]
}

function configLines({ config, image }: ImageStat): string[] {
  const descriptor = config ? descriptorLines(config.descriptor) : []
  if (!image) return descriptor
  return [
    ...field('Created', image.created),
    `Author: ${image.author ? quote(image.author) : '(empty)'}`,
    'Platform:',
    ...indent(platformLines(image)),
    'Image Config:',
    ...indent(executionLines(image.config ?? {})),
    ...descriptor,
  ]
}

function platformLines(image: ImageConfig): string[] {
  const { os, architecture, variant } = image
  const suffix = variant ? ` (${quote(variant)})` : ''
  return [
    `OS: ${quote(os, 'precise')}`,
    ...field('OS Version', image['os.version']),
    ...setLine('OS Features', image['os.features']),
    `Architecture: ${quote(architecture, 'precise')}${suffix}`,
  ]
}

function executionLines(config: NonNullable<ImageConfig['config']>): string[] {
  const { User, Entrypoint, Cmd, WorkingDir, Env, StopSignal, ExposedPorts, Volumes, Labels } =
    config
  return [
    `User: ${quote(User ?? '', 'precise')}`,
    ...listLines('Entrypoint', Entrypoint),
    ...(Cmd && Cmd.length > 0 ? listLines('Command', Cmd) : ['Command: (empty)']),
    ...field('Working Directory', WorkingDir),
    ...listLines('Environment', Env),
    ...field('Stop Signal', StopSignal),
    ...setLine('Exposed Ports', ExposedPorts && Object.keys(ExposedPorts)),
    ...setLine('Volumes', Volumes && Object.keys(Volumes)),
    ...mapLines('Labels', Labels),
  ]
}

function descriptorLines(descriptor: Descriptor): string[] {
  const { mediaType, digest, size, urls, annotations, data, artifactType } = descriptor
  const bytes = data === undefined ? undefined : Buffer.from(data, 'base64')
  return [
    'Descriptor:',
    ...indent([
      `Media Type: ${quote(mediaType, 'precise')}`,
      ...field('Artifact Type', artifactType),
      `Digest: ${digest}`,
      `Size: ${humanSize(size)}`,
      ...listLines('URLs', urls),
      ...mapLines('Annotations', annotations),
      ...(bytes ? [`Data: (${bytes.length} bytes)`, ...indent(hexDump(bytes))] : []),
    ]),
  ]
}

function historyTable(rows: readonly HistoryRow[]): string[] {
  const table = rows.map(({ layer, history }) => [
    layer?.digest ?? '<none>',
    quote(history.created ?? ''),
    quote(history.created_by ?? ''),
    layer ? humanSize(layer.size) : '<none>',
    quote(history.comment ?? ''),
  ])
  table.unshift(['LAYER', 'CREATED', 'CREATED BY', 'SIZE', 'COMMENT'])
  const widths = [0, 1, 2, 3].map(column =>
    Math.max(4, ...table.map(row => (row[column] ?? '').length + 1)),
  )
  return table.map(row =>
    row
      .map((cell, column) => cell.padEnd(widths[column] ?? 0))
      .join('')
      .trimEnd(),
  )
}

function field(name: string, value: string | undefined): string[] {
  return value ? [`${name}: ${quote(value, 'precise')}`] : []
}

/** One element per line. */
function listLines(name: string, values: readonly string[] | undefined): string[] {
  if (!values || values.length === 0) return []
  return [`${name}:`, ...indent(values.map(value => quote(value, 'precise')))]
}

/** Sorted, on one line. */
function setLine(name: string, values: readonly string[] | undefined): string[] {
  if (!values || values.length === 0) return []
  return [
    `${name}: ${[...values]
      .sort()
      .map(value => quote(value, 'member'))
      .join(', ')}`,
  ]
}

function mapLines(name: string, map: Readonly<Record<string, string>> | undefined): string[] {
  const entries = Object.entries(map ?? {}).sort(([a], [b]) => (a < b ? -1 : 1))
  if (entries.length === 0) return []
  return [
    `${name}:`,
    ...indent(entries.map(([key, value]) => `${quote(key)}: ${quote(value)}`)),
  ]
}

function indent(lines: readonly string[]): string[] {
  return lines.map(line => `\t${line}`)
}
