import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import t from 'tap'
import { ImageLayout } from '../../lib/layout/image-layout.ts'
import { verifyLayout } from '../../lib/layout/verify-layout.ts'
import { makeFixture } from '../differential/fixture.ts'
import { temporary } from '../support/peers.ts'
import { koci } from './run-koci.ts'

await t.test('a good layout has no problems', async t => {
  const cwd = temporary(t, 'verify')
  await makeFixture(cwd)
  t.same(await koci(['verify', '--layout', 'images'], { cwd }), {
    code: 0,
    stdout: '',
    stderr: '',
  })
  const { stdout } = await koci(['verify', '--json', '--layout', 'images'], { cwd })
  t.match(JSON.parse(stdout), { documents: Number, layers: 4, unused: 0, problems: [] })
})

await t.test('every problem is told, each once', async t => {
  const cwd = temporary(t, 'verify')
  await makeFixture(cwd)
  const { code, stdout, stderr } = await koci(['verify', '--layout', 'bad'], { cwd })
  t.equal(code, 1)
  const told = [
    /corrupt|malformed gzip/,
    /diffID mismatch/,
    /media type application\/x-foreign is not supported/,
    /tar\+lz4 is not supported/,
    /invalid image config: 0 diff_ids for 1 layers/,
  ]
  for (const message of told) t.match(stdout, message)
  const lines = stdout.trimEnd().split('\n')
  t.equal(new Set(lines).size, lines.length)
  t.match(stderr, `koci: bad: ${lines.length} problems found [ERR_KOCI_LAYOUT_DAMAGED]\n`)
})

await t.test('what is missing, spoilt, or not an image', async t => {
  const cwd = temporary(t, 'verify')
  await makeFixture(cwd)
  const images = path.join(cwd, 'images')
  const blobs = path.join(images, 'blobs/sha256')
  const stray = 'f'.repeat(64)
  writeFileSync(path.join(blobs, stray), 'x')
  writeFileSync(path.join(blobs, 'no-digest'), 'x')
  const index = JSON.parse(readFileSync(path.join(images, 'index.json'), 'utf8'))
  const [first] = index.manifests
  index.manifests.push(
    { mediaType: 'application/octet-stream', digest: first.digest, size: first.size },
    { mediaType: 'application/octet-stream', digest: `sha256:${stray}`, size: 1 },
    { ...first, mediaType: 'application/vnd.oci.image.index.v1+json' },
  )
  writeFileSync(path.join(images, 'index.json'), JSON.stringify(index))
  const manifest = JSON.parse(
    readFileSync(path.join(blobs, first.digest.slice('sha256:'.length)), 'utf8'),
  )
  rmSync(path.join(blobs, manifest.config.digest.slice('sha256:'.length)))

  const layout = await ImageLayout.open(images)
  const { problems, unused } = await verifyLayout(layout)
  t.equal(unused, 0)
  t.same(
    problems.map(({ code }) => code).sort(),
    [
      'ERR_KOCI_BLOB_NOT_FOUND',
      'ERR_KOCI_DIGEST_MISMATCH',
      'ERR_KOCI_INVALID_DIGEST',
      'ERR_KOCI_INVALID_INDEX',
    ],
    problems.map(String).join('\n'),
  )
  const controller = new AbortController()
  controller.abort()
  await t.rejects(verifyLayout(layout, { signal: controller.signal }), {
    code: 'ERR_KOCI_ABORTED',
  })
  t.ok(readdirSync(images).every(name => !name.startsWith('.koci')))
})
