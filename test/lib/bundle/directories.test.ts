import { existsSync, mkdirSync, readdirSync, rmdirSync } from 'node:fs'
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

await t.test(
  'a directory that another run removes as soon as it is there is made again',
  async t => {
    for (const [what, ...gone] of [
      ['the directory', 'a/b/bundle'],
      ['a parent', 'a/b'],
      ['all of them', 'a/b/bundle', 'a/b', 'a'],
    ] as const)
      await t.test(what, async t => {
        const base = t.testdir()
        let times = 0
        around(t, 'mkdir', async (file, call) => {
          await call()
          if (file !== path.join(base, gone[0]) || (times += 1) > 3) return
          for (const name of gone) rmdirSync(path.join(base, name))
        })
        const bundle = await Bundle.begin(path.join(base, 'a/b/bundle'))
        t.equal(times, 4)
        await bundle.rollback()
        bundle.release()
        t.strictSame(readdirSync(base), [], 'and so are all that were made')
      })
  },
)

await t.test('one that was there and is just being removed is no link to nowhere', async t => {
  for (const look of [1, 2])
    await t.test(`gone after look ${look}`, async t => {
      const directory = path.join(t.testdir({ bundle: {} }), 'bundle')
      let times = 0
      around(t, 'lstat', async (file, call) => {
        const found = await call()
        if (file === directory && (times += 1) === look) rmdirSync(directory)
        return found
      })
      const bundle = await Bundle.begin(directory)
      await bundle.rollback()
      bundle.release()
      t.notOk(existsSync(directory), 'the one that was made is gone')
    })
})

await t.test(
  'one that never stays is an error in the end, and nothing is left of it',
  async t => {
    const base = t.testdir()
    const directory = path.join(base, 'deep/bundle')
    around(t, 'mkdir', async (file, call) => {
      await call()
      if (file === directory) rmdirSync(file)
    })
    await t.rejects(Bundle.begin(directory), { code: 'ERR_KOCI_IO', cause: { code: 'ENOENT' } })
    t.strictSame(readdirSync(base), [])
  },
)

await t.test(
  'directories that others made, even in one that was made for it, stay',
  async t => {
    const base = t.testdir()
    const directory = path.join(base, 'a/b/bundle')
    around(t, 'mkdir', async (file, call) => {
      if (file === path.join(base, 'a/b')) mkdirSync(file)
      return call()
    })
    const bundle = await Bundle.begin(directory)
    await bundle.rollback()
    bundle.release()
    t.strictSame(readdirSync(path.join(base, 'a')), ['b'])
    t.strictSame(readdirSync(path.join(base, 'a/b')), [])
  },
)
