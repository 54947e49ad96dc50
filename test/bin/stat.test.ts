import path from 'node:path'
import t, { type Test } from 'tap'
import { hexDump, humanSize, quote } from '../../bin/stat/go-text.ts'
import { readStat } from '../../bin/stat/read-stat.ts'
import { toJson } from '../../bin/stat/stat-json.ts'
import { toText } from '../../bin/stat/stat-text.ts'
import { ImageLayout } from '../../lib/layout/image-layout.ts'
import { encodeDocument } from '../../lib/oci/image-draft.ts'
import { ociTypes } from '../../lib/oci/media-type.ts'
import { makeImage, type TestImage } from '../support/image.ts'
import { koci } from './run-koci.ts'

const file = [{ name: 'x', body: 'x'.repeat(2000) }]

/** The stat of an image that is made for it, in both forms. */
async function statOf(t: Test, image: TestImage): Promise<{ text: string; json: string }> {
  const images = path.join(t.testdir(), 'images')
  await makeImage(images, 'a', image)
  await using layout = await ImageLayout.open(images)
  const stat = await readStat(layout, 'a', {})
  return { text: toText(stat), json: toJson(stat).toString() }
}

await t.test('shows manifest, config and history in blocks', async t => {
  const { text, json } = await statOf(t, {
    layers: [file],
    config: {
      User: 'me:us',
      Env: ['PATH=/bin', 'A=b c'],
      Entrypoint: ['/bin/sh', '-c'],
      Cmd: ['echo "hi"'],
      WorkingDir: '/srv',
      StopSignal: 'SIGTERM',
      ExposedPorts: { '8080/tcp': {}, '22/tcp': {} },
      Volumes: { '/b,c': {}, '/a': {} },
      Labels: { b: '2', a: '1' },
    },
    platform: { os: 'linux', architecture: 'arm64', variant: 'v8' },
    compression: 'none',
    change: draft => ({
      ...draft,
      manifest: { ...draft.manifest, annotations: { note: 'a note' } },
      config: {
        ...draft.config,
        author: 'somebody',
        history: [
          { created: '2026-01-01T00:00:00Z', created_by: 'COPY x /', comment: 'first' },
          { created: '2026-01-01T00:00:01Z', created_by: 'ENV A="b c"', empty_layer: true },
        ],
      },
    }),
  })
  const { manifest, config } = JSON.parse(json)
  const [layer] = manifest.blob.layers
  t.equal(
    text,
    `== MANIFEST ==
Schema Version: 2
Media Type: application/vnd.oci.image.manifest.v1+json
Config:
	Descriptor:
		Media Type: application/vnd.oci.image.config.v1+json
		Digest: ${config.descriptor.digest}
		Size: ${config.descriptor.size}B
Layers:
	Descriptor:
		Media Type: application/vnd.oci.image.layer.v1.tar
		Digest: ${layer.digest}
		Size: 3.584kB
Annotations:
	note: a note
Descriptor:
	Media Type: application/vnd.oci.image.manifest.v1+json
	Digest: ${manifest.descriptor.digest}
	Size: ${manifest.descriptor.size}B
	Annotations:
		org.opencontainers.image.ref.name: a

== CONFIG ==
Created: 2026-01-01T00:00:00Z
Author: somebody
Platform:
	OS: linux
	Architecture: arm64 (v8)
Image Config:
	User: me:us
	Entrypoint:
		/bin/sh
		-c
	Command:
		"echo \\"hi\\""
	Working Directory: /srv
	Environment:
		PATH=/bin
		"A=b c"
	Stop Signal: SIGTERM
	Exposed Ports: 22/tcp, 8080/tcp
	Volumes: /a, "/b,c"
	Labels:
		a: 1
		b: 2
Descriptor:
	Media Type: application/vnd.oci.image.config.v1+json
	Digest: ${config.descriptor.digest}
	Size: ${config.descriptor.size}B

== HISTORY ==
LAYER                                                                   CREATED              CREATED BY      SIZE    COMMENT
${layer.digest} 2026-01-01T00:00:00Z COPY x /        3.584kB first
<none>                                                                  2026-01-01T00:00:01Z "ENV A=\\"b c\\"" <none>
`,
  )
})

await t.test('the JSON is of the shape that umoci prints', async t => {
  const { json } = await statOf(t, {
    layers: [file, file],
    change: draft => ({
      ...draft,
      config: {
        ...draft.config,
        Healthcheck: { Test: '<&>' },
        history: [
          { created: '2026-01-01T00:00:00Z', created_by: 'one' },
          { created: '2026-01-01T00:00:00Z', empty_layer: true, author: 'me', comment: '' },
          { created_by: 'two', empty_layer: false },
        ],
      },
    }),
  })
  t.match(json, /^\{"manifest":\{"descriptor":\{"mediaType":.*\}\n$/)
  t.match(
    json,
    String.raw`"Healthcheck":{"Test":"\u003c\u0026\u003e"}`,
    'unknown fields, escaped',
  )
  const { manifest, config, history } = JSON.parse(json)
  const [one, two] = manifest.blob.layers
  const [first, second] = config.blob.rootfs.diff_ids
  t.same(history, [
    { layer: one, diff_id: first, created: '2026-01-01T00:00:00Z', created_by: 'one' },
    {
      layer: null,
      diff_id: '',
      created: '2026-01-01T00:00:00Z',
      author: 'me',
      empty_layer: true,
    },
    { layer: two, diff_id: second, created_by: 'two' },
  ])
})

await t.test('a history that lacks times, layers or entries is shown as it is', async t => {
  const histories = [
    undefined,
    [],
    [{}],
    [{ created_by: 'one' }, { created_by: 'two' }, { created_by: 'too many' }],
    [{ empty_layer: true }],
  ]
  for (const [at, history] of histories.entries()) {
    await t.test(`history ${at}`, async t => {
      const { text, json } = await statOf(t, {
        layers: [file],
        change: draft => {
          const { history: _, created: _created, ...config } = draft.config
          return { ...draft, config: history ? { ...config, history } : config }
        },
      })
      const rows = JSON.parse(json).history
      t.equal(rows.length, history?.length ?? 0)
      t.notMatch(text, 'Created:')
      t.equal(text.split('== HISTORY ==\n')[1]?.trimEnd().split('\n').length, rows.length + 1)
      if (at === 3) t.match(rows[1], { layer: null, diff_id: '' }, 'no such layer')
    })
  }
})

await t.test('an artifact has a manifest, and its empty config', async t => {
  const images = path.join(t.testdir(), 'images')
  await using layout = await ImageLayout.create(images)
  const empty = await layout.putBlob(Buffer.from('{}'), ociTypes.empty)
  const other = await layout.putBlob(
    Buffer.from('helm'),
    'application/vnd.cncf.helm.config.v1+json',
  )
  for (const [tag, config] of [
    ['empty', { ...empty, data: 'e30=' }],
    ['helm', other],
  ] as const) {
    const { bytes, descriptor } = encodeDocument(
      {
        schemaVersion: 2,
        mediaType: ociTypes.manifest,
        artifactType: 'a/b',
        config,
        layers: [],
      },
      { mediaType: ociTypes.manifest },
    )
    await layout.putBlob(bytes, descriptor.mediaType)
    await layout.setRef(tag, descriptor)
  }
  const helm = await readStat(layout, 'helm', {})
  t.same(Object.keys(JSON.parse(toJson(helm).toString())), ['manifest'])
  t.notMatch(toText(helm), 'CONFIG')
  const bare = await readStat(layout, 'empty', {})
  t.same(JSON.parse(toJson(bare).toString()).config.blob, {})
  t.match(toText(bare), /\t\tData: \(2 bytes\)\n\t\t\t0000: 7b7d {37}\{\}\n/)
  t.match(toText(bare), 'Artifact Type: a/b\n')
  t.notMatch(toText(bare), 'HISTORY')
})

await t.test('an index needs a platform, by default that of the machine', async t => {
  const cwd = t.testdir()
  const images = path.join(cwd, 'images')
  for (const architecture of ['s390x', 'riscv64'])
    await makeImage(images, architecture, {
      layers: [],
      platform: { os: 'linux', architecture },
    })
  await using layout = await ImageLayout.open(images)
  const manifests = (await layout.refs()).map(({ refName, descriptor }) => ({
    mediaType: descriptor.mediaType,
    digest: descriptor.digest,
    size: descriptor.size,
    platform: { os: 'linux', architecture: refName },
  }))
  const { bytes, descriptor } = encodeDocument(
    { schemaVersion: 2, mediaType: ociTypes.index, manifests },
    { mediaType: ociTypes.index },
  )
  await layout.putBlob(bytes, descriptor.mediaType)
  await layout.setRef('multi', descriptor)

  const none = await koci(['stat', '--image', 'images:multi'], { cwd })
  t.equal(none.code, 1)
  t.match(none.stderr, /linux\/s390x, linux\/riscv64.*\[ERR_KOCI_PLATFORM_NOT_FOUND\]/)
  const one = await koci(
    ['stat', '--image', 'images:multi', '--platform', 'linux/riscv64', '--json'],
    { cwd },
  )
  t.equal(JSON.parse(one.stdout).config.blob.architecture, 'riscv64')

  await koci(['tag', '--image', 'images:multi', 'copy'], { cwd })
  const refs = await layout.refs()
  t.equal(refs.at(-1)?.descriptor.digest, descriptor.digest, 'the tag of an index is one, too')
})

await t.test('what an image says about itself never reaches the terminal raw', async t => {
  const { text } = await statOf(t, {
    layers: [],
    config: {
      User: '\u001b[31m',
      Labels: { 'a\u001b]0;x\u0007': '\u202egnp.exe' },
      Env: ['A=\n'],
      Volumes: { '/\r': {} },
    },
    change: draft => ({
      ...draft,
      config: {
        ...draft.config,
        author: '\u0000\u009b',
        history: [{ created: '\u001b', created_by: '\u001b', comment: '\u2028' }],
      },
    }),
  })
  t.notMatch(text, /[^\n\t\x20-\x7e]/)
  t.match(text, String.raw`User: "\x1b[31m"`)
  t.match(text, String.raw`"\u202egnp.exe"`)
})

const quoted: [text: string, kind: 'loose' | 'precise' | 'member', result: string][] = [
  ['plain', 'precise', 'plain'],
  ['two words', 'loose', 'two words'],
  ['two words', 'precise', '"two words"'],
  ['', 'loose', ''],
  ['', 'precise', '""'],
  ['a,b', 'precise', 'a,b'],
  ['a,b', 'member', '"a,b"'],
  ['back\\slash', 'loose', '"back\\\\slash"'],
  ['tab\t', 'loose', '"tab\\t"'],
  ['Grüße', 'loose', 'Grüße'],
  ['\u{10ffff}', 'loose', '"\\U0010ffff"'],
  ['\u00a0', 'loose', '"\\u00a0"'],
  ['\x7f', 'loose', '"\\x7f"'],
]
for (const [text, kind, result] of quoted)
  await t.test(`${JSON.stringify(text)} (${kind}) is quoted as in Go`, async t => {
    t.equal(quote(text, kind), result)
  })

const sizes: [bytes: number, text: string][] = [
  [0, '0B'],
  [135, '135B'],
  [999, '999B'],
  [1000, '1kB'],
  [1107, '1.107kB'],
  [38_820_000, '38.82MB'],
  [1_999_990, '2MB'],
  [5e12, '5TB'],
]
for (const [bytes, text] of sizes)
  await t.test(`${bytes} bytes are ${text}`, async t => {
    t.equal(humanSize(bytes), text)
  })

await t.test('embedded data is dumped, 256 bytes at most', async t => {
  t.same(hexDump(Buffer.from('0123456789abcdef\n')), [
    '0000: 3031 3233 3435 3637 3839 6162 6364 6566  0123456789abcdef',
    `0010: 0a${' '.repeat(37)}  .`,
  ])
  const long = hexDump(Buffer.alloc(300))
  t.equal(long.length, 17)
  t.equal(long.at(-1), '....  (extra 44 bytes omitted)')
})
