// A directory that is removed while the upper directory is read: it was met, and can't be listed any more.
import { mkdirSync, rmSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import t from 'tap'
import { listUpper } from '../../../middleware/overlay/upper-changes.ts'

const many = 5000

for (const [what, directories] of [
  ['open', 1],
  ['closed to save descriptors', 200],
] as const)
  await t.test(`a directory that is gone before it is listed, ${what}`, async t => {
    const upper = t.testdir({ z: {} })
    for (let n = 0; n < directories; n++) mkdirSync(path.join(upper, `a${n}`))
    // listed first; its many names make the walk take a turn
    for (let n = 0; n < many; n++) writeFileSync(path.join(upper, 'z', `${n}`), '')
    const root = { mode: 0o040755, uid: 0, gid: 0, mtime: 0n, xattrs: [] }
    const { signal } = new AbortController()
    const stack = { dirs: [], root }
    const listing = listUpper({ upper, stack, dialect: 'overlay-trusted', signal })
    for (let n = 0; n < directories; n++) rmSync(path.join(upper, `a${n}`), { recursive: true })
    await t.rejects(listing, { code: 'ERR_KOCI_FILE_CHANGED' })
  })
