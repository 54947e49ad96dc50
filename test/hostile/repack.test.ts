// K: repacking a rootfs that changes meanwhile, or holds what layers can't. What becomes of the layout when a repack is
// killed or meets another (K15, K16) is in test/peers/concurrency.test.ts and test/lib/repack-hostile.test.ts.
import { execFileSync, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import {
  appendFileSync,
  chmodSync,
  chownSync,
  closeSync,
  linkSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { createServer } from 'node:net'
import path from 'node:path'
import t, { type Test } from 'tap'
import { cstring } from '../../lib/fs/libc.ts'
import { setXattr } from '../../lib/fs/xattr.ts'
import { Koci, map, type Driver, type Warning } from '../../lib/index.ts'
import { mtree } from '../../middleware/mtree/index.ts'
import { fingerprint, isRoot, makePlace, removePlace, type Place } from '../support/hostile.ts'
import { makeImage } from '../support/image.ts'
import { dir, file, hard } from '../support/members.ts'
import { describeTree } from '../support/tree.ts'

// far more than it takes, but tests run beside each other
t.setTimeout(900_000)

const needsRoot = !isRoot && 'needs root: mount, mknod, chown'
const needsUser = isRoot && 'needs an ordinary user: root may read everything'
const layers = [
  [
    dir('etc', { mtime: 1_600_000_000 }),
    file('etc/motd', 'hello\n', { mtime: 1_600_000_000 }),
    dir('d', { mtime: 1_600_000_000 }),
    file('d/one', 'one name', { mtime: 1_600_000_000 }),
    hard('d/two', 'd/one'),
    hard('etc/three', 'd/one'),
  ],
]

/** Something that is done to a rootfs, and what repack is to make of it. */
interface Case {
  readonly id: string
  readonly what: string
  readonly edit: (rootfs: string, place: Place) => void | Promise<void>
  /** Between the comparison and the packing. */
  readonly afterDelta?: (rootfs: string, place: Place) => void
  /** When this entry was described and is about to be read. */
  readonly atBody?: readonly [name: string, act: (rootfs: string, place: Place) => void]
  /** `kind path`, bytewise; compared if given. */
  readonly changes?: readonly string[]
  readonly rejects?: string
  readonly says?: string | RegExp
  readonly warns?: readonly string[]
  /** What is left out of the comparison of both trees. */
  readonly except?: RegExp
  readonly undo?: (rootfs: string, place: Place) => void
  readonly skip?: string | false
  readonly onDisk?: boolean
  readonly seconds?: number
  readonly inspect?: (t: Test, again: string, rootfs: string) => void
}

async function attempt(t: Test, test: Case): Promise<void> {
  const place = makePlace(test.onDisk)
  const { rootfs, bundle, images } = place
  const before = fingerprint(place)
  try {
    const image = await makeImage(images, 'test', { layers })
    const rootless = !isRoot
    await new Koci().use(mtree()).unpack({ image, bundle, rootless })
    await test.edit(rootfs, place)
    const warnings: Warning[] = []
    const app = new Koci().use(meddler(test, place)).use(mtree())
    app.on('warning', ({ data }) => void warnings.push(data))
    const signal = AbortSignal.timeout((test.seconds ?? 20) * 1000)
    const run = app.repack({ image: `${images}:next`, bundle, signal })
    if (test.rejects !== undefined) {
      await t.rejects(run, { code: `ERR_KOCI_${test.rejects}` })
      await run.catch((error: Error) => {
        const { says = '' } = test
        t.ok(
          typeof says === 'string' ? error.message.startsWith(says) : says.test(error.message),
          error.message,
        )
      })
      const next = new Koci().unpack({ image: `${images}:next`, bundle: `${bundle}-2` })
      await t.rejects(next, { code: 'ERR_KOCI_REF_NOT_FOUND' }, 'no tag was moved')
      return
    }
    const { changes } = await run
    if (test.changes)
      t.strictSame(
        changes.map(({ kind, path }) => `${kind} ${path}`),
        test.changes,
      )
    t.strictSame([...new Set(warnings.map(({ code }) => code))], test.warns ?? [])
    const again = await new Koci().unpack({
      image: `${images}:next`,
      bundle: `${bundle}-2`,
      rootless,
    })
    const compared = (tree: string): string[] =>
      describeTree(tree).filter(line => !test.except?.test(line))
    if (test.except?.source !== '.*')
      t.strictSame(compared(again.rootfs), compared(rootfs), 'the same tree comes back')
    test.inspect?.(t, again.rootfs, rootfs)
  } finally {
    test.undo?.(rootfs, place)
    t.strictSame(fingerprint(place), before, 'nothing outside was touched')
    removePlace(place)
  }
}

function meddler({ afterDelta, atBody }: Case, place: Place): Driver {
  return {
    name: 'meddler',
    delta: async (_, next) => {
      await next()
      afterDelta?.(place.rootfs, place)
    },
    pack: async (ctx, next) => {
      await next()
      if (!atBody || !ctx.entries) return
      const [name, act] = atBody
      ctx.entries = map(ctx.entries, entry => {
        if (String(entry.rawPath) === name) act(place.rootfs, place)
        return entry
      })
    },
  }
}

const setXattrOf = (name: string, attribute: string, value: Buffer | string): void =>
  setXattr(cstring(name), Buffer.from(attribute), Buffer.from(value))
const some = (rootfs: string): void => writeFileSync(`${rootfs}/d/new`, 'some text')

const swaps: Array<[what: string, swap: (rootfs: string, place: Place) => void]> = [
  ['is gone', rootfs => rmSync(`${rootfs}/d/new`)],
  ['has grown', rootfs => appendFileSync(`${rootfs}/d/new`, 'more')],
  ['has shrunk', rootfs => truncateSync(`${rootfs}/d/new`, 3)],
  [
    'has become a fifo',
    rootfs => {
      rmSync(`${rootfs}/d/new`)
      execFileSync('mkfifo', [`${rootfs}/d/new`])
    },
  ],
  [
    'has become a link to a file outside',
    (rootfs, { canary }) => {
      rmSync(`${rootfs}/d/new`)
      symlinkSync(`${canary}/file`, `${rootfs}/d/new`)
    },
  ],
  [
    'has become a directory',
    rootfs => {
      rmSync(`${rootfs}/d/new`)
      mkdirSync(`${rootfs}/d/new`)
    },
  ],
  [
    'has been replaced by one of the same size',
    rootfs => {
      writeFileSync(`${rootfs}/d/other`, 'same size')
      renameSync(`${rootfs}/d/other`, `${rootfs}/d/new`)
    },
  ],
]

const cases: Case[] = [
  ...swaps.map(([what, act]): Case => ({
    id: 'K01',
    what: `a file that ${what} once it was described`,
    edit: some,
    atBody: ['d/new', act],
    rejects: 'FILE_CHANGED',
    says: 'd/new: ',
  })),
  ...swaps
    .filter(([what]) => what === 'is gone')
    .map(([what, afterDelta]): Case => ({
      id: 'K01',
      what: `a file that ${what} once it was listed`,
      edit: some,
      afterDelta,
      rejects: 'FILE_CHANGED',
      says: 'd/new: ',
    })),
  {
    id: 'K02',
    what: 'a directory that is gone once it was listed',
    edit: some,
    afterDelta: rootfs => rmSync(`${rootfs}/d`, { recursive: true }),
    rejects: 'FILE_CHANGED',
    says: /^d: |^d\/new: /,
  },
  {
    id: 'K03',
    what: 'sockets are left out with a warning',
    edit: async (rootfs, { base }) => {
      // the path of a socket is short
      const short = path.join(base, 's')
      const server = createServer().listen(short)
      await once(server, 'listening')
      linkSync(short, `${rootfs}/d/socket`)
      server.close()
      some(rootfs)
    },
    changes: ['M d', 'A d/new', 'A d/socket'],
    warns: ['SOCKET_SKIPPED'],
    except: /^d\/socket /,
  },
  {
    id: 'K04',
    what: 'what bars its owner is read, and bars him again afterwards',
    skip: needsUser,
    edit: rootfs => {
      writeFileSync(`${rootfs}/d/new`, 'secret')
      chmodSync(`${rootfs}/d/new`, 0)
      chmodSync(`${rootfs}/d`, 0)
    },
    changes: ['M d', 'A d/new'],
    except: /.*/,
    inspect: (t, ...trees) => {
      for (const tree of trees) {
        t.equal(statSync(`${tree}/d`).mode & 0o777, 0)
        chmodSync(`${tree}/d`, 0o700)
        t.equal(statSync(`${tree}/d/new`).mode & 0o777, 0)
        chmodSync(`${tree}/d/new`, 0o600)
        t.equal(readFileSync(`${tree}/d/new`, 'utf8'), 'secret')
      }
    },
  },
  {
    id: 'K05',
    what: 'a sparse file that shrinks while it is read',
    edit: rootfs => {
      writeFileSync(`${rootfs}/d/new`, '')
      truncateSync(`${rootfs}/d/new`, 64 * 2 ** 20)
    },
    atBody: ['d/new', rootfs => truncateSync(`${rootfs}/d/new`, 2 ** 20)],
    rejects: 'FILE_CHANGED',
    says: 'd/new: ',
  },
  {
    id: 'K05',
    what: 'a sparse file of 100 MiB comes back sparse',
    onDisk: true,
    edit: rootfs => {
      writeFileSync(`${rootfs}/d/new`, 'begin')
      truncateSync(`${rootfs}/d/new`, 100 * 2 ** 20)
    },
    changes: ['M d', 'A d/new'],
    inspect: (t, again) => {
      const { size, blocks } = statSync(`${again}/d/new`)
      t.equal(size, 100 * 2 ** 20)
      t.ok(blocks < 1000, `${blocks} blocks`)
    },
  },
  {
    id: 'K06',
    what: 'a new name of a file that has names in two directories',
    edit: rootfs => linkSync(`${rootfs}/d/one`, `${rootfs}/etc/four`),
    changes: ['M d/one', 'M d/two', 'M etc', 'A etc/four', 'M etc/three'],
  },
  {
    id: 'K06',
    what: 'a name less',
    edit: rootfs => rmSync(`${rootfs}/d/two`),
    changes: ['M d', 'M d/one', 'D d/two', 'M etc/three'],
  },
  {
    id: 'K06',
    what: 'a name that is called otherwise: the others come along',
    edit: rootfs => renameSync(`${rootfs}/d/two`, `${rootfs}/etc/0`),
    changes: ['M d', 'M d/one', 'D d/two', 'M etc', 'A etc/0', 'M etc/three'],
  },
  {
    id: 'K06',
    what: 'all names called otherwise, and in a new directory',
    edit: rootfs => {
      mkdirSync(`${rootfs}/n`)
      for (const [from, to] of [
        ['d/one', 'n/3'],
        ['d/two', 'n/1'],
        ['etc/three', 'n/2'],
      ])
        renameSync(`${rootfs}/${from}`, `${rootfs}/${to}`)
    },
  },
  {
    id: 'K06',
    what: 'one of the names replaced by a file of its own',
    edit: rootfs => {
      rmSync(`${rootfs}/d/two`)
      writeFileSync(`${rootfs}/d/two`, 'one name')
    },
  },
  {
    id: 'K06',
    what: 'the content of all names changed through one',
    edit: rootfs => writeFileSync(`${rootfs}/d/two`, 'changed'),
    changes: ['M d/one', 'M d/two', 'M etc/three'],
  },
  {
    id: 'K06',
    what: 'a file one of whose names is outside of the rootfs',
    edit: (rootfs, { base }) => {
      writeFileSync(path.join(base, 'outside'), 'mine')
      linkSync(path.join(base, 'outside'), `${rootfs}/d/new`)
    },
    changes: ['M d', 'A d/new'],
  },
  {
    id: 'K06',
    what: 'a symlink and a fifo with two names',
    edit: rootfs => {
      symlinkSync('../../../canary/file', `${rootfs}/d/l`)
      linkSync(`${rootfs}/d/l`, `${rootfs}/etc/l`)
      execFileSync('mkfifo', [`${rootfs}/d/p`])
      linkSync(`${rootfs}/d/p`, `${rootfs}/etc/p`)
    },
    changes: ['M d', 'A d/l', 'A d/p', 'M etc', 'A etc/l', 'A etc/p'],
  },
  {
    id: 'K06',
    what: 'files made where others were deleted, whose inodes they got',
    edit: rootfs => {
      for (let turn = 0; turn < 20; turn += 1) {
        rmSync(`${rootfs}/etc/motd`, { force: true })
        writeFileSync(`${rootfs}/d/new${turn % 3}`, `${turn}`)
        rmSync(`${rootfs}/d/new${(turn + 1) % 3}`, { force: true })
      }
    },
  },
  {
    id: 'K07',
    what: 'what is mounted in the rootfs is not packed',
    warns: ['MOUNTED_INSIDE'],
    skip: needsRoot,
    edit: (rootfs, { canary }) => {
      some(rootfs)
      mkdirSync(`${rootfs}/m`)
      execFileSync('mount', ['-t', 'tmpfs', 'none', `${rootfs}/m`], { timeout: 20_000 })
      writeFileSync(`${rootfs}/m/secret`, 'x')
      // a file of the same name as one that is recorded
      execFileSync('mount', ['--bind', `${canary}/file`, `${rootfs}/etc/motd`], {
        timeout: 20_000,
      })
    },
    changes: ['M ', 'M d', 'A d/new', 'A m'],
    undo: rootfs => {
      for (const name of ['m', 'etc/motd'])
        execFileSync('umount', [`${rootfs}/${name}`], { timeout: 20_000 })
    },
    except: /.*/,
    inspect: (t, again) => {
      t.strictSame(readdirSync(`${again}/m`), [])
      t.equal(readFileSync(`${again}/etc/motd`, 'utf8'), 'hello\n')
    },
  },
  {
    id: 'K08',
    what: 'a directory that has become a link once it was listed',
    edit: rootfs => {
      some(rootfs)
      writeFileSync(`${rootfs}/etc/new`, 'somebody else')
    },
    afterDelta: rootfs => {
      renameSync(`${rootfs}/d`, `${rootfs}/moved`)
      symlinkSync('etc', `${rootfs}/d`)
    },
    rejects: 'FILE_CHANGED',
    says: /^d\/?(new)?: /,
  },
  {
    id: 'K08',
    what: 'a directory that has become a link to the outside once its file was described',
    edit: rootfs => {
      mkdirSync(`${rootfs}/s`)
      writeFileSync(`${rootfs}/s/file`, 'from inside')
    },
    atBody: [
      's/file',
      (rootfs, { canary }) => {
        renameSync(`${rootfs}/s`, `${rootfs}/moved`)
        symlinkSync(canary, `${rootfs}/s`)
      },
    ],
    changes: ['M ', 'A s', 'A s/file'],
    except: /.*/,
    inspect: (t, again) => {
      t.equal(readFileSync(`${again}/s/file`, 'utf8'), 'from inside')
    },
  },
  {
    id: 'K09',
    what: 'a value of 64 KiB, and two thousand names',
    edit: rootfs => {
      setXattrOf(`${rootfs}/etc/motd`, 'user.large', 'v'.repeat(65_536))
      for (let at = 0; at < 2000; at += 1) setXattrOf(`${rootfs}/d`, `user.${at}`, `${at}`)
    },
    changes: ['M d', 'M etc/motd'],
    skip: withoutLargeXattrs(),
  },
  {
    id: 'K10',
    what: 'names of any bytes, and of any length',
    edit: rootfs => {
      for (const name of [
        Buffer.from([0xff, 0x0a, 0x20, 0x62]),
        Buffer.from(' a=b'),
        Buffer.from('\\134#*?['),
        Buffer.from('"\x1b[31m'),
        Buffer.alloc(255, 'n'),
        Buffer.from('.wh'),
        Buffer.from('e\u0301'),
        Buffer.from('é'),
        Buffer.from('-'),
      ])
        writeFileSync(Buffer.concat([Buffer.from(`${rootfs}/d/`), name]), name)
      symlinkSync(Buffer.from([0xff, 0x0a]), `${rootfs}/d/link`)
      const deep = path.join(rootfs, ...Array.from({ length: 6 }, () => 'x'.repeat(250)))
      mkdirSync(deep, { recursive: true })
      writeFileSync(path.join(deep, 'end'), 'x')
      linkSync(path.join(deep, 'end'), path.join(deep, 'too'))
    },
  },
  ...['.wh.a', 'd/.wh.a', '.wh..wh..opq', 'd/.wh..wh.plnk', '.wh.'].map((name): Case => ({
    id: 'K11',
    what: `a file called ${name}`,
    edit: rootfs => writeFileSync(`${rootfs}/${name}`, 'x'),
    rejects: 'INVALID_WHITEOUT',
    says: `${name}: `,
  })),
  {
    id: 'K12',
    what: 'a change within a nanosecond, of the same size, with its time put back',
    edit: rootfs => {
      const { atime, mtime } = statSync(`${rootfs}/etc/motd`)
      writeFileSync(`${rootfs}/etc/motd`, 'HELLO\n')
      utimesSync(`${rootfs}/etc/motd`, atime, mtime)
    },
    changes: ['M etc/motd'],
  },
  {
    id: 'K12',
    what: 'a time that differs by less than a second',
    edit: rootfs => utimesSync(`${rootfs}/etc/motd`, 1_600_000_000, 1_600_000_000.5),
    changes: ['M etc/motd'],
  },
  {
    id: 'K13',
    what: 'a device 0:0 and attributes of overlayfs are what they are',
    skip: needsRoot,
    onDisk: true,
    edit: rootfs => {
      execFileSync('mknod', [`${rootfs}/d/c`, 'c', '0', '0'])
      setXattrOf(`${rootfs}/d`, 'trusted.overlay.opaque', 'y')
      setXattrOf(`${rootfs}/etc/motd`, 'trusted.overlay.metacopy', '')
    },
    changes: ['M d', 'A d/c', 'M etc/motd'],
  },
  {
    id: 'K17',
    what: 'metadata of the root itself',
    onDisk: true,
    edit: rootfs => {
      chmodSync(rootfs, 0o1711)
      setXattrOf(rootfs, 'user.k', 'v')
      if (isRoot) chownSync(rootfs, 12, 13)
      utimesSync(rootfs, 5, 6.5)
    },
    changes: ['M '],
  },
  {
    id: 'K19',
    what: 'a thousand levels',
    edit: rootfs => {
      const script =
        'i=0; while [ $i -lt 1000 ]; do mkdir a && cd -P a; i=$((i+1)); done; echo x > end'
      execFileSync('sh', ['-c', script], { cwd: `${rootfs}/d`, timeout: 60_000 })
    },
    except: /.*/,
    seconds: 60,
    inspect: (t, again) => {
      const levels = Array.from({ length: 1000 }, () => 'a').join('/')
      t.equal(readFileSync(`${again}/d/${levels}/end`, 'utf8'), 'x\n')
    },
  },
  {
    id: 'K20',
    what: 'files that nobody may change or only append to are packed as others are',
    skip: withoutFlags(),
    onDisk: true,
    edit: rootfs => {
      some(rootfs)
      writeFileSync(`${rootfs}/d/log`, 'x')
      execFileSync('chattr', ['+i', `${rootfs}/d/new`])
      execFileSync('chattr', ['+a', `${rootfs}/d/log`])
    },
    undo: rootfs => execFileSync('chattr', ['-ia', `${rootfs}/d/new`, `${rootfs}/d/log`]),
    changes: ['M d', 'A d/log', 'A d/new'],
  },
]

await t.test(
  'K05 a file of 1 TiB of nothing is packed until somebody has enough of it',
  { skip: withoutHugeFiles() },
  async t => {
    const place = makePlace(true)
    const { rootfs, bundle, images } = place
    try {
      const image = await makeImage(images, 'test', { layers })
      const app = new Koci().use(mtree())
      await app.unpack({ image, bundle, rootless: !isRoot })
      writeFileSync(`${rootfs}/d/huge`, '')
      truncateSync(`${rootfs}/d/huge`, 2 ** 40)
      const before = filesOf(images)
      const started = performance.now()
      const signal = AbortSignal.timeout(1500)
      await t.rejects(app.repack({ image: `${images}:next`, bundle, signal }), {
        code: 'ERR_KOCI_ABORTED',
      })
      const took = performance.now() - started
      t.ok(took < 10_000, `${took.toFixed(0)} ms`)
      t.strictSame(filesOf(images), before, 'the layout holds nothing of it')
    } finally {
      removePlace(place)
    }
  },
)

await t.test('K14 of one tree every repack makes the same bytes', async t => {
  const place = makePlace()
  const { rootfs, bundle, images } = place
  const former = process.env['SOURCE_DATE_EPOCH']
  process.env['SOURCE_DATE_EPOCH'] = '1700000000'
  try {
    const image = await makeImage(images, 'test', { layers })
    await new Koci().use(mtree()).unpack({ image, bundle, rootless: !isRoot })
    // in an order that isn't theirs, and of a size that several workers share
    for (const name of ['z', 'b', '\u00e9', 'a', 'Z'])
      writeFileSync(`${rootfs}/d/${name}`, name.repeat(700_000))
    rmSync(`${rootfs}/etc/motd`)
    linkSync(`${rootfs}/d/z`, `${rootfs}/etc/z`)
    setXattrOf(`${rootfs}/d/a`, 'user.b', '2')
    setXattrOf(`${rootfs}/d/a`, 'user.a', '1')
    const copy = `${bundle}-copy`
    execFileSync('cp', ['-a', bundle, copy], { timeout: 20_000 })
    const made = []
    for (const [index, from] of [bundle, bundle, copy].entries()) {
      const app = new Koci().use(mtree())
      const { image } = await app.repack({ image: `${images}:n${index}`, bundle: from })
      made.push(image.descriptor.digest)
    }
    t.strictSame(made.slice(1), [made[0], made[0]])
  } finally {
    if (former === undefined) delete process.env['SOURCE_DATE_EPOCH']
    else process.env['SOURCE_DATE_EPOCH'] = former
    removePlace(place)
  }
})

/** All files and directories of a layout, but locks that somebody took. */
function filesOf(images: string): string[] {
  return readdirSync(images, { recursive: true, encoding: 'utf8' }).sort()
}

function withoutHugeFiles(): string | false {
  const place = makePlace(true)
  try {
    writeFileSync(path.join(place.base, 'probe'), '')
    truncateSync(path.join(place.base, 'probe'), 2 ** 40)
    return false
  } catch {
    return 'needs a file system whose files may have 1 TiB'
  } finally {
    removePlace(place)
  }
}

for (const each of cases)
  await t.test(`${each.id} ${each.what}`, { skip: each.skip ?? false }, t => attempt(t, each))

function withoutLargeXattrs(): string | false {
  const place = makePlace()
  try {
    const probe = path.join(place.base, 'probe')
    closeSync(openSync(probe, 'w'))
    setXattrOf(probe, 'user.large', 'v'.repeat(65_536))
    return false
  } catch {
    return 'needs a file system in memory that has user attributes of 64 KiB'
  } finally {
    removePlace(place)
  }
}

function withoutFlags(): string | false {
  if (!isRoot) return 'needs root: chattr'
  const place = makePlace(true)
  const probe = path.join(place.base, 'probe')
  try {
    closeSync(openSync(probe, 'w'))
    const { status } = spawnSync('chattr', ['+i', probe], { timeout: 20_000 })
    if (status === 0) execFileSync('chattr', ['-i', probe], { timeout: 20_000 })
    return status === 0 ? false : 'needs chattr, and a file system with flags'
  } finally {
    removePlace(place)
  }
}
