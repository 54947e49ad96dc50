// Layers that would come out differently on top of those below them.
import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import t from 'tap'
import { Extraction } from '../../../lib/layer/extraction.ts'
import { Layer, type StackingReport } from '../../../lib/layer/layer.ts'
import { reasonToNeedBelow } from '../../../lib/layer/needs-below.ts'
import { digestOf } from '../../../lib/oci/digest.ts'

const none = { root: false, opaque: false, implied: [], missing: [], hollow: [] }

function layerAt(index: number, dir: string, stacking?: StackingReport): Layer {
  const digest = digestOf(Buffer.from(String(index)))
  const description = {
    descriptor: { mediaType: 'application/vnd.oci.image.layer.v1.tar', digest, size: 1 },
    diffID: digest,
    chainID: digest,
    compression: 'none',
  } as const
  const layer = new Layer(index, description, () => Promise.reject(new Error('not read')))
  layer.place({ dir, by: 'test', verified: true, report: { entries: 1, bytes: 1, stacking } })
  return layer
}

const tables: [what: string, report: Partial<StackingReport>, reason: RegExp | undefined][] = [
  ['nothing', {}, undefined],
  ['a directory below', { implied: ['dir'], hollow: ['dir'] }, undefined],
  ['nothing below', { implied: ['new', 'new/deeper'], hollow: ['new'] }, undefined],
  ['a file below', { implied: ['file'] }, undefined],
  ['a symlink below', { implied: ['link'] }, /^link is a symlink/],
  [
    'a symlink in a directory below',
    { implied: ['dir', 'dir/lin\\k'] },
    /^dir\/lin\\k is a symlink/,
  ],
  ['whiteouts in a file below', { hollow: ['file'] }, /^file, which only whiteouts are in/],
  ['an entry over a symlink, to be kept', { entries: ['link'] }, /^link is a symlink/],
]
for (const [what, report, reason] of tables)
  await t.test(`a layer that implies ${what}`, async t => {
    const base = t.testdir({ below: { dir: {}, file: 'x' }, above: {} })
    symlinkSync('dir', path.join(base, 'below/link'))
    symlinkSync('..', path.join(base, 'below/dir/lin\\k'))
    writeFileSync(path.join(base, 'below/dir/file'), '')
    mkdirSync(path.join(base, 'empty'))
    const below = [layerAt(0, path.join(base, 'empty')), layerAt(1, path.join(base, 'below'))]
    const layer = layerAt(2, path.join(base, 'above'), { ...none, ...report })
    const extraction = new Extraction()
    const found = reasonToNeedBelow(layer, below, extraction)
    if (reason) t.match(found, reason)
    else t.equal(found, undefined)
    t.equal(reasonToNeedBelow(layer, [], extraction), undefined, 'the base needs nothing')
    layer.reopen('a reason')
    t.equal(reasonToNeedBelow(layer, below, extraction), undefined, 'once is enough')
  })

await t.test('a layer below that is gone is an error with the layer as subject', async t => {
  const base = t.testdir({ above: {} })
  const layer = layerAt(1, path.join(base, 'above'), { ...none, implied: ['x'] })
  const below = [layerAt(0, path.join(base, 'gone'))]
  t.throws(() => reasonToNeedBelow(layer, below, new Extraction()), { code: 'ERR_KOCI_IO' })
})
