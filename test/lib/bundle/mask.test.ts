import t from 'tap'
import { dropMasked, masksOf } from '../../../lib/bundle/mask.ts'
import { ChangeList } from '../../../lib/change-list.ts'
import { change } from '../../../lib/change.ts'
import type { ImageConfig } from '../../../lib/oci/image-config.ts'

function config(volumes: Record<string, unknown>): ImageConfig {
  return {
    os: 'linux',
    architecture: 'amd64',
    config: { Volumes: volumes },
    rootfs: { type: 'layers', diff_ids: [] },
  }
}

function kept(paths: Array<string | Buffer>, masks: Array<string | Uint8Array>): string[] {
  const changes = paths.map(path => change('M', Buffer.from(path)))
  const cleaned = masksOf(config({}), { maskPaths: masks })
  return dropMasked(new ChangeList(changes), cleaned).map(({ rawPath }) =>
    rawPath.toString('latin1'),
  )
}

await t.test('a mask covers itself and what is beneath it, component by component', async t => {
  const paths = ['', 'etc', 'etc-a', 'etc/passwd', 'etc/x/y', 'etcetera', 'usr/etc']
  const cases: Array<[masks: string[], left: string[]]> = [
    [[], paths],
    [['/etc'], ['', 'etc-a', 'etcetera', 'usr/etc']],
    [['etc/'], ['', 'etc-a', 'etcetera', 'usr/etc']],
    [['//etc/./x/..'], ['', 'etc-a', 'etcetera', 'usr/etc']],
    [['/../etc'], ['', 'etc-a', 'etcetera', 'usr/etc']],
    [['/etc/x'], ['', 'etc', 'etc-a', 'etc/passwd', 'etcetera', 'usr/etc']],
    [
      ['/etc', '/usr'],
      ['', 'etc-a', 'etcetera'],
    ],
    [['/ETC'], paths],
  ]
  for (const [masks, left] of cases) t.same(kept(paths, masks), left, masks.join(' '))
})

await t.test('the root cannot be masked', async t => {
  for (const mask of ['/', '.', '', './', 'a/..'])
    t.same(kept(['', 'a'], [mask]), ['', 'a'], mask)
})

await t.test('masks are bytes', async t => {
  const raw = Buffer.from([0xff, 0x2f, 0x61])
  t.same(kept([raw, 'é/x'], [Buffer.from([0xff])]), [Buffer.from('é/x').toString('latin1')])
  t.same(kept([raw, 'é/x'], ['/é']), [raw.toString('latin1')])
})

await t.test('volumes are masked unless that is switched off', async t => {
  const image = config({ '/var/lib/x': {}, data: {} })
  const text = (options?: Parameters<typeof masksOf>[1]) => masksOf(image, options).map(String)
  t.same(text(), ['var/lib/x', 'data'])
  t.same(text({ maskPaths: ['/m'] }), ['m', 'var/lib/x', 'data'])
  t.same(text({ maskPaths: ['/m'], maskVolumes: false }), ['m'])
  t.same(masksOf({ ...image, config: {} }), [])
})
