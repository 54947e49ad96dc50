// Real subvolumes, on a btrfs of the test's own.
import {
  closeSync,
  existsSync,
  linkSync,
  mkdirSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import path from 'node:path'
import t from 'tap'
import * as calls from '../../../lib/fs/btrfs-calls.ts'
import {
  createSnapshot,
  createSubvolume,
  destroySubvolume,
  fileSystemID,
  hasNested,
  inodePaths,
  describeSubvolume,
  sendChanges,
} from '../../../lib/fs/btrfs.ts'
import { cstring } from '../../../lib/fs/libc.ts'
import { setWritable } from '../../support/set-writable.ts'
import { mountpoint, onFileSystem } from '../../support/btrfs.ts'

if (mountpoint !== undefined) await onBtrfs(mountpoint)
else {
  await elsewhere()
  await onFileSystem(t, import.meta.filename)
}

async function elsewhere(): Promise<void> {
  await t.test('where there is no btrfs', async t => {
    const base = t.testdir({ from: {} })
    const notHere = {
      code: 'ERR_KOCI_UNSUPPORTED_PLATFORM',
      message: /not on a btrfs.*cache\(\)/,
    }
    t.throws(() => createSubvolume(path.join(base, 'new')), notHere)
    t.throws(
      () => createSnapshot(path.join(base, 'from'), path.join(base, 'to'), { readOnly: true }),
      notHere,
    )
    t.throws(() => destroySubvolume(path.join(base, 'from')), notHere)
    t.throws(() => describeSubvolume(path.join(base, 'from')), notHere)
    t.throws(() => hasNested(base), notHere)
    t.throws(() => fileSystemID(base), notHere)
    t.throws(() => createSubvolume(path.join(base, 'no/new')), { code: 'ERR_KOCI_IO' })
    t.ok(existsSync(path.join(base, 'from')))
  })

  await t.test('arguments that the kernel would take for others', async t => {
    const invalid = { code: 'ERR_KOCI_INVALID_OPTION' }
    for (const fd of [Number.NaN, -1, 1.5, 2 ** 40])
      t.throws(() => calls.createSubvolume(fd, cstring('a')), invalid, `${fd}`)
    for (const name of ['', 'a/b', 'x'.repeat(256)])
      t.throws(() => calls.createSubvolume(0, cstring(name)), invalid, name)
    t.throws(() => calls.createSnapshot(0, cstring('a'), Number.NaN, true), invalid)
    t.throws(() => calls.sendChanges(Number.NaN, 0, 1n), invalid)
    t.throws(() => calls.sendChanges(0, Number.NaN, 1n), invalid)
  })
}

async function onBtrfs(base: string): Promise<void> {
  await t.test('subvolumes and snapshots', async t => {
    const [one, two, three] = ['one', 'two', 'three'].map(name => path.join(base, name))
    if (!one || !two || !three) return
    createSubvolume(one)
    t.equal(statSync(one).ino, 256)
    t.throws(() => createSubvolume(one), { code: 'ERR_KOCI_IO', cause: { code: 'EEXIST' } })
    writeFileSync(path.join(one, 'file'), 'content')

    createSnapshot(one, two, { readOnly: true })
    t.equal(readFileSync(path.join(two, 'file'), 'utf8'), 'content')
    t.equal(statSync(path.join(two, 'file')).ino, statSync(path.join(one, 'file')).ino)
    t.throws(() => writeFileSync(path.join(two, 'file'), 'x'), { code: 'EROFS' })

    createSnapshot(two, three, { readOnly: false })
    writeFileSync(path.join(three, 'file'), 'other')
    t.equal(readFileSync(path.join(two, 'file'), 'utf8'), 'content')

    t.equal(describeSubvolume(path.join(base, 'nowhere')), undefined)
    t.equal(describeSubvolume(one)?.isUntouched, false, 'writable')
    t.equal(describeSubvolume(two)?.isUntouched, true)
    t.not(describeSubvolume(two)?.uuid, describeSubvolume(three)?.uuid)
    setWritable(two, true)
    writeFileSync(path.join(two, 'file'), 'changed')
    setWritable(two, false)
    t.throws(() => writeFileSync(path.join(two, 'file'), 'x'), { code: 'EROFS' })
    t.equal(describeSubvolume(two)?.isUntouched, false, 'what was done to it stays visible')

    t.notOk(hasNested(one))
    createSubvolume(path.join(one, 'nested'))
    t.ok(hasNested(one))
    destroySubvolume(path.join(one, 'nested'))
    t.notOk(hasNested(one))

    t.match(fileSystemID(one), /^[0-9a-f]{32}$/)
    t.equal(fileSystemID(one), fileSystemID(base))
    for (const each of [one, two, three]) {
      destroySubvolume(each)
      t.notOk(existsSync(each))
      destroySubvolume(each)
    }
  })

  await t.test('what is no subvolume', async t => {
    const directory = path.join(base, 'directory')
    mkdirSync(path.join(directory, 'inner'), { recursive: true })
    t.throws(() =>
      createSnapshot(path.join(directory, 'inner'), path.join(base, 'copy'), {
        readOnly: true,
      }),
    )
    t.throws(() => destroySubvolume(path.join(directory, 'inner')))
    t.ok(existsSync(path.join(directory, 'inner')))
    rmSync(directory, { recursive: true })
  })

  await t.test('names of an inode', async t => {
    const volume = path.join(base, 'names')
    createSubvolume(volume)
    const first = path.join(volume, 'first')
    writeFileSync(first, '')
    mkdirSync(path.join(volume, 'd'))
    const names = ['first']
    for (let at = 0; at < 40; at += 1) {
      const name = `d/${String(at).repeat(20)}`
      linkSync(first, path.join(volume, name))
      names.push(name)
    }
    const fd = openSync(volume, 'r')
    const { ino } = statSync(first, { bigint: true })
    t.strictSame(inodePaths(fd, ino)?.map(String).sort(), names.sort())
    for (let at = 0; at < 40; at += 1) linkSync(first, path.join(volume, `${at}`.repeat(100)))
    t.equal(inodePaths(fd, ino), undefined, 'more than the kernel tells')
    t.throws(() => inodePaths(fd, 12345n), { code: 'ENOENT' })
    closeSync(fd)
    destroySubvolume(volume)
  })

  await t.test('what changed between two snapshots', async t => {
    const [live, before, after] = ['live', 'before', 'after'].map(name => path.join(base, name))
    if (!live || !before || !after) return
    createSubvolume(live)
    writeFileSync(path.join(live, 'file'), 'content')
    createSnapshot(live, before, { readOnly: true })
    writeFileSync(path.join(live, 'new'), 'content of the new one')
    createSnapshot(live, after, { readOnly: true })
    const output = path.join(base, 'stream')
    const fd = openSync(output, 'wx')
    t.equal(await sendChanges(before, after, fd), true)
    const bytes = readFileSync(output)
    t.equal(bytes.toString('latin1', 0, 13), 'btrfs-stream\0')
    t.ok(bytes.includes('new'))
    t.notOk(bytes.includes('content of the new one'), 'no contents')
    t.equal(
      await sendChanges(before, live, fd),
      false,
      'refused, as to those without privilege',
    )
    closeSync(fd)
    for (const each of [live, before, after]) destroySubvolume(each)
  })
}
