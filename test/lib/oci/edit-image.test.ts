import t from 'tap'
import { editImage, type ImageEdits } from '../../../lib/oci/edit-image.ts'
import { encodeDraft, newImage, type ImageDraft } from '../../../lib/oci/image-draft.ts'
import type { ExecutionConfig } from '../../../lib/oci/image-config.ts'

const platform = { os: 'linux', architecture: 'arm64', variant: 'v8' }
const fresh = newImage({ platform, created: '2026-01-01T00:00:00Z' })

function configOf(draft: ImageDraft): string {
  return encodeDraft(draft).config.bytes.toString()
}

function execution(before: ExecutionConfig, edits: ImageEdits): ExecutionConfig {
  const draft = { ...fresh, config: { ...fresh.config, config: before } }
  return editImage(draft, edits).config.config ?? {}
}

const cases: [before: ExecutionConfig, edits: ImageEdits, after: ExecutionConfig][] = [
  [{ User: 'a' }, {}, { User: 'a' }],
  [{ User: 'a' }, { user: '' }, {}],
  [
    {},
    { user: 'b', workingDir: '/w', stopSignal: 'TERM' },
    { User: 'b', WorkingDir: '/w', StopSignal: 'TERM' },
  ],
  [{ Env: ['A=1', 'B=2'] }, { env: ['A=3', 'C=4', 'A=5='] }, { Env: ['A=5=', 'B=2', 'C=4'] }],
  [{ Env: ['AB=1'] }, { env: ['A=2'] }, { Env: ['AB=1', 'A=2'] }],
  [{ Env: ['A=1'] }, { clear: ['config.env'] }, {}],
  [{ Env: ['A=1'] }, { clear: ['config.env'], env: ['B=1'] }, { Env: ['B=1'] }],
  [
    { Cmd: ['a'], Entrypoint: ['b'] },
    { cmd: ['c', ''] },
    { Entrypoint: ['b'], Cmd: ['c', ''] },
  ],
  [{ Cmd: ['a'], Entrypoint: ['b'] }, { clear: ['config.cmd', 'config.entrypoint'] }, {}],
  [{ Entrypoint: [] }, {}, {}],
  [
    { Labels: { b: '1' } },
    { labels: ['a=2', 'b=', '__proto__=x'] },
    { Labels: { ['__proto__']: 'x', a: '2', b: '' } },
  ],
  [{ Labels: { b: '1' } }, { clear: ['config.labels'] }, {}],
  [
    { Volumes: { '/a': {} } },
    { volumes: ['/b'], exposedPorts: ['80'] },
    { ExposedPorts: { 80: {} }, Volumes: { '/a': {}, '/b': {} } },
  ],
  [
    { Volumes: { '/a': {} }, ExposedPorts: { 80: {} } },
    { clear: ['config.volume', 'config.exposedports'] },
    {},
  ],
  [
    { OnBuild: [], Healthcheck: {} },
    { user: 'a' },
    { User: 'a', OnBuild: [], Healthcheck: {} },
  ],
]

for (const [before, edits, after] of cases)
  await t.test(`${JSON.stringify(before)} with ${JSON.stringify(edits)}`, async t => {
    const found = execution(before, edits)
    t.strictSame(found, after)
    t.equal(JSON.stringify(found), JSON.stringify(after), 'in the order in which Go writes it')
  })

for (const edits of [
  { env: ['A'] },
  { env: [''] },
  { env: ['=A'] },
  { labels: ['a'] },
  { labels: ['=a'] },
  { annotations: ['a'] },
  { exposedPorts: [''] },
  { volumes: [''] },
])
  await t.test(`${JSON.stringify(edits)} makes no sense`, async t => {
    t.throws(() => editImage(fresh, edits), { code: 'ERR_KOCI_INVALID_OPTION' })
  })

await t.test('what is not edited stays, and nothing is edited in place', async t => {
  const before = configOf(fresh)
  const draft = { ...fresh, config: { ...fresh.config, docker_version: '1', history: [] } }
  const edited = editImage(draft, { author: 'me', annotations: ['b=1', 'a=2'] })
  t.equal(
    configOf(edited),
    '{"created":"2026-01-01T00:00:00Z","author":"me","architecture":"arm64","os":"linux","variant":"v8",' +
      '"config":{},"rootfs":{"type":"layers","diff_ids":[]},"history":[],"docker_version":"1"}\n',
  )
  t.match(
    encodeDraft(edited).manifest.bytes.toString(),
    /"layers":\[\],"annotations":\{"a":"2","b":"1"\}\}\n$/,
  )
  t.equal(configOf(fresh), before)
  const cleared = editImage(edited, {
    clear: ['manifest.annotations'],
    author: '',
    variant: '',
  })
  t.notOk('annotations' in cleared.manifest)
  t.notOk('author' in cleared.config || 'variant' in cleared.config)
  t.match(
    editImage(fresh, {
      os: 'freebsd',
      architecture: 'riscv64',
      created: '2020-01-01t00:00:00.10+00:00',
    }).config,
    {
      os: 'freebsd',
      architecture: 'riscv64',
      created: '2020-01-01T00:00:00.1Z',
    },
  )
})
