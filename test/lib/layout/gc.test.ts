import { existsSync, mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { isError } from '../../../lib/errors.ts'
import { collectGarbage, type GarbageReport } from '../../../lib/layout/gc.ts'
import { ImageLayout } from '../../../lib/layout/image-layout.ts'
import { dockerTypes, ociTypes } from '../../../lib/oci/media-type.ts'
import {
  addBlob,
  addImage,
  fileOf,
  makeLayout,
  snapshot,
  tagged,
  writeIndex,
} from './fixture.ts'

async function collect(dir: string): Promise<GarbageReport> {
  await using layout = await ImageLayout.open(dir)
  return collectGarbage(layout)
}

await t.test('Removes what nothing leads to, and nothing else', async t => {
  const dir = makeLayout(t.testdir())
  const docker = addImage(dir, { layers: ['a'], docker: true })
  const list = addBlob(dir, dockerTypes.index, { schemaVersion: 2, manifests: [docker] })
  const subject = addImage(dir, { layers: ['s'] })
  const absent = { ...subject, digest: `sha256:${'0'.repeat(64)}` }
  const referrer = addImage(dir, { layers: ['r'], manifest: { subject } })
  const other = addImage(dir, {
    layers: ['o'],
    algorithm: 'sha512',
    manifest: { subject: absent },
  })
  const foreign = addBlob(dir, 'application/x-foreign', 'not JSON')
  writeIndex(dir, [tagged(list, 'list'), tagged(referrer, 'r'), other, foreign])
  const before = snapshot(dir)
  t.same(await collect(dir), { removed: [], staging: [] })
  t.same(snapshot(dir), before)

  const garbage = [
    addBlob(dir, 'a/b', 'garbage'),
    addBlob(dir, 'a/b', 'garbage', 'sha512'),
    addImage(dir, { layers: ['a', 'gone'] }),
  ]
  writeFileSync(join(dir, 'blobs/sha256/not-a-digest'), '')
  writeFileSync(join(dir, 'blobs/other'), '')
  mkdirSync(join(dir, '.umoci-123'))
  mkdirSync(join(dir, '.koci-dead'))
  writeFileSync(join(dir, '.koci-dead/0'), 'half a blob')
  const report = await collect(dir)
  t.same(report.staging, ['.koci-dead'])
  t.equal(report.removed.length, 5, 'the layer "a" is used by another image')
  for (const { digest } of garbage) t.ok(report.removed.includes(digest))
  for (const name of ['blobs/sha256/not-a-digest', 'blobs/other', '.umoci-123'])
    t.ok(existsSync(join(dir, name)), name)
  await using layout = await ImageLayout.open(dir)
  t.ok(await layout.resolve('r'))
})

await t.test('Removes nothing if a document is missing or damaged', async t => {
  for (const damage of [rmSync, (path: string) => writeFileSync(path, '{}')]) {
    const dir = makeLayout(join(t.testdir(), damage.name || 'x'))
    const image = addImage(dir)
    addBlob(dir, 'a/b', 'garbage')
    writeIndex(dir, [
      tagged(addBlob(dir, ociTypes.index, { schemaVersion: 2, manifests: [image] }), 'x'),
    ])
    damage(fileOf(dir, image))
    const before = snapshot(dir)
    await t.rejects(collect(dir), { name: /NotFoundError|IntegrityError/ })
    t.same(snapshot(dir), before)
  }
})

await t.test('Refuses while somebody writes: blobs without a tag may get one yet', async t => {
  const dir = makeLayout(t.testdir())
  const writer = await ImageLayout.open(dir)
  const blob = await writer.putBlob(Buffer.from('soon'), 'a/b')
  await t.rejects(collect(dir), { code: 'ERR_KOCI_LOCKED' })
  t.same(await writer.readBlob(blob), Buffer.from('soon'))
  await writer.close()
  t.same((await collect(dir)).removed, [blob.digest])
  t.same(readdirSync(dir).sort(), ['blobs', 'index.json', 'oci-layout'])
})

await t.test('Meets writers that are just closing', async t => {
  const dir = makeLayout(t.testdir())
  const write = async (): Promise<void> => {
    for (let turn = 0; turn < 150; turn += 1) {
      await using writer = await ImageLayout.open(dir)
      await writer.putBlob(Buffer.from(String(turn)), 'a/b')
    }
  }
  const collectAll = async (): Promise<void> => {
    for (let turn = 0; turn < 700; turn += 1)
      try {
        await collect(dir)
      } catch (error) {
        if (!isError(error, 'LOCKED')) throw error
      }
  }
  await Promise.all([write(), collectAll()])
  await collect(dir)
  t.same(readdirSync(join(dir, 'blobs/sha256')), [])
  t.same(readdirSync(dir).sort(), ['blobs', 'index.json', 'oci-layout'])
})
