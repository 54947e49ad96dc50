import { readdirSync, writeFileSync } from 'node:fs'
import * as promises from 'node:fs/promises'
import { join } from 'node:path'
import t from 'tap'
import * as libc from '../../../lib/fs/libc.ts'
import type * as newFile from '../../../lib/layout/new-file.ts'

let onMade: (directory: string) => void = () => undefined

/** On a file system that can't rename without replacing. */
const { renameNewDirectory } = await t.mockImport<typeof newFile>(
  '../../../lib/layout/new-file.ts',
  {
    '../../../lib/fs/libc.ts': {
      ...libc,
      renameat2: (_: number, from: libc.CString) => {
        throw new libc.SystemCallError(-libc.errno.EINVAL, 'renameat2', from)
      },
    },
    'node:fs/promises': {
      ...promises,
      mkdir: async (directory: string) => {
        await promises.mkdir(directory)
        onMade(directory)
      },
    },
  },
)

await t.test('a directory gets its name where no rename keeps from replacing, too', async t => {
  const dir = t.testdir({ draft: { file: '' } })
  await renameNewDirectory(join(dir, 'draft'), join(dir, 'new'))
  t.same(readdirSync(dir, { recursive: true, encoding: 'utf8' }).sort(), ['new', 'new/file'])
})

await t.test('what is there is not replaced', async t => {
  const dir = t.testdir({ draft: { file: '' }, empty: {}, other: 'mine' })
  for (const name of ['empty', 'other'])
    await t.rejects(renameNewDirectory(join(dir, 'draft'), join(dir, name)), {
      code: 'ERR_KOCI_CLOBBER',
    })
  const all = readdirSync(dir, { recursive: true, encoding: 'utf8' }).sort()
  t.same(all, ['draft', 'draft/file', 'empty', 'other'])
})

await t.test('what comes into the empty directory meanwhile stays', async t => {
  const dir = t.testdir({ draft: { file: '' } })
  onMade = made => writeFileSync(join(made, 'mine'), '')
  await t.rejects(renameNewDirectory(join(dir, 'draft'), join(dir, 'new')), {
    code: 'ERR_KOCI_CLOBBER',
  })
  const all = readdirSync(dir, { recursive: true, encoding: 'utf8' }).sort()
  t.same(all, ['draft', 'draft/file', 'new', 'new/mine'])
})
