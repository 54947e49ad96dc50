import { existsSync } from 'node:fs'
import path from 'node:path'
import t from 'tap'
import { Bundle } from '../../../lib/bundle/bundle.ts'
import { tryLock } from '../../../lib/fs/lock.ts'
import { around } from '../../support/around.ts'

await t.test(
  'what was made for a run that could not begin is removed under its lock',
  async t => {
    const directory = path.join(t.testdir(), 'deep/bundle')
    const seen: string[] = []
    around(t, 'chmod', async () =>
      Promise.reject(Object.assign(new Error('no'), { code: 'EPERM' })),
    )
    around(t, 'rmdir', async (file, call) => {
      using lock = file === directory ? tryLock(file, { create: false }) : undefined
      seen.push(`${path.basename(file)} ${lock ? 'free' : 'locked'}`)
      return call()
    })
    await t.rejects(Bundle.begin(directory), { code: 'ERR_KOCI_IO', cause: { code: 'EPERM' } })
    t.strictSame(seen, ['bundle locked', 'deep locked'])
    t.notOk(existsSync(path.dirname(directory)))
  },
)
