import { execFileSync } from 'node:child_process'
import * as fs from 'node:fs'
import * as fc from 'fast-check'
import t from 'tap'
import { parseMtree } from '../../../lib/bundle/mtree-parser.ts'
import { umociKeywords } from '../../../lib/bundle/mtree-writer.ts'
import { textOf } from '../../support/record.ts'
import { RecordBuilder } from '../../../lib/bundle/record-builder.ts'
import { recordTree } from '../../../lib/bundle/record-tree.ts'
import type { RecordEntry, TreeRecord } from '../../../lib/bundle/record.ts'
import { inTree } from '../../support/rootfs.ts'
import { withoutUmoci } from '../../support/umoci.ts'
import '../../support/seed.ts'

const sum = 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855'

/** Attributes for rows that are made up. */
const directory = { uid: 0, gid: 0, nlink: 2, size: 0, mtime: 0n, ctime: 0n, ino: 1n }

/** As umoci 0.4.7 wrote it, the comments of a directory with a newline in its name included. */
const umociText = `#          user: root
#       machine: vm
#          tree: b/rootfs
#          date: Mon Nov 23 20:36:00 2026
#      keywords: ${umociKeywords.join(',')}

# .
/set type=file nlink=1 mode=0664 uid=0 gid=0
. size=4096 type=dir mode=0755 nlink=8 tar_time=1795466160.000000000
    a\\040b size=2 mode=0644 nlink=2 tar_time=1795466145.000000000 sha256digest=${sum}
    blk size=0 type=block mode=0644 tar_time=1795466145.000000000
    fifo size=0 type=fifo mode=0 tar_time=1795466145.000000000
    h\\043\\052\\077\\133\\\\ size=2 tar_time=-315619200.000000000 sha256digest=${sum}
    link size=7 type=link mode=0777 link=t\\040\\377\\\\\\043\\012\\052 tar_time=1795466145.000000000
    sock size=0 type=socket mode=0755 tar_time=1795466145.000000000

# a
a size=4096 type=dir mode=0755 nlink=3 tar_time=1795466145.000000000 xattr.user.dir=aGVsbG8=
    z size=2 mode=04755 tar_time=1.000000000 sha256digest=${sum} xattr.user.foo=YmFy/w== xattr.user.empty= xattr.user.a\\040b=eA==

# a/b
/set type=file nlink=1 mode=0664 uid=5 gid=6
b size=4096 type=dir mode=0755 nlink=3 tar_time=1795466145.000000000
    f size=2 uid=0 gid=0 mode=0644 tar_time=1577836800.000000000 sha256digest=${sum}
..
..

# dir
new
/set type=file nlink=1 mode=0664 uid=0 gid=0
dir\\012new size=4096 type=dir mode=0755 nlink=2 tar_time=1795466145.000000000

# dir
new/sub
sub size=4096 type=dir mode=0755 nlink=2 tar_time=1795466145.000000000
..
..
..
`

function parse(text: string): TreeRecord {
  return parseMtree(Buffer.from(text, 'latin1'), 'test')
}

function entry(record: TreeRecord, path: string): RecordEntry {
  const row = record.find(Buffer.from(path, 'latin1'))
  return record.entry(row, Buffer.from(path, 'latin1'))
}

await t.test('reads what umoci wrote', async t => {
  const record = parse(umociText)
  t.equal(record.count, 13)
  t.same(
    [...record.entries()].map(({ rawPath }) => rawPath.toString('latin1')),
    [
      '',
      'a b',
      'blk',
      'fifo',
      'h#*?[\\',
      'link',
      'sock',
      'a',
      'a/z',
      'a/b',
      'a/b/f',
      'dir\nnew',
      'dir\nnew/sub',
    ],
  )
  t.match(entry(record, 'a b'), { type: 'file', mode: 0o644, nlink: 2, size: 2, uid: 0 })
  t.equal(entry(record, 'a b').sha256?.toString('hex'), sum)
  t.match(entry(record, 'h#*?[\\'), {
    mode: 0o664,
    mtime: -315619200_000_000_000n,
    ctime: undefined,
  })
  t.same(entry(record, 'link').rawLinkname, Buffer.from('t \u00ff\\#\n*', 'latin1'))
  t.equal(entry(record, 'fifo').mode, 0)
  t.match(entry(record, 'a/b'), { uid: 5, gid: 6, type: 'directory' })
  t.match(entry(record, 'a/b/f'), { uid: 0, gid: 0 })
  t.equal(entry(record, 'blk').devmajor, undefined, 'text says nothing of it')
  t.same(
    entry(record, 'a/z').xattrs.map(([name, value]) => [
      name.toString(),
      value.toString('latin1'),
    ]),
    [
      ['user.foo', 'bar\u00ff'],
      ['user.empty', ''],
      ['user.a b', 'x'],
    ],
  )
  t.equal(record.find(Buffer.from('a/none')), -1)
})

await t.test('writes what umoci wrote, but for comments', async t => {
  const uncommented = (text: string) =>
    text
      .split('\n')
      .filter(line => !line.startsWith('#') && line !== 'new' && line !== 'new/sub')
  t.same(uncommented(textOf(parse(umociText)).toString()), uncommented(umociText))
  t.match(textOf(parse(umociText)).toString(), '\n# dir\\012new/sub\n')
})

await t.test('reads what others write', async t => {
  const record = parse(`#mtree v2.0

/set type=file uid=7 gid=8 mode=0600 nlink=1
.   type=dir mode=0755 time=5.000000000 flags=none
    x   uname=root size=3 time=1700000000.5 sha256=${sum.toUpperCase()} md5=12 optional
/set uid=9
    y   size=1 \\
        mode=0644 tar_time=1.0
/unset
    z   type=file size=0\r
..`)
  t.match(entry(record, 'x'), {
    uid: 7,
    gid: 8,
    mode: 0o600,
    mtime: 1_700_000_000_000_000_000n,
  })
  t.equal(entry(record, 'x').sha256?.toString('hex'), sum)
  t.match(entry(record, 'y'), { uid: 9, gid: 8, mode: 0o644, size: 1 })
  t.match(entry(record, 'z'), { uid: 0, gid: 0, mode: 0 })
})

await t.test('what is malformed is named with its line', async t => {
  const top = '. type=dir\n'
  const cases: Array<[text: string, line: number, reason: RegExp]> = [
    ['', 0, /no entries/],
    ['# only a comment\n', 1, /no entries/],
    ['x type=dir\n', 1, /not "."/],
    ['. type=file\n', 1, /root is not a directory/],
    ['. mode=0755\n', 1, /without a type/],
    [`${top}a type=file\na type=file\n`, 3, /twice/],
    [`${top}b type=file\na type=file\n`, 3, /out of order/],
    [`${top}d type=dir\n..\na type=file\n`, 4, /after the subdirectories/],
    [`${top}d type=dir\n..\nc type=dir\n`, 4, /out of order/],
    [`${top}..\n..\n`, 3, /above the root/],
    [`${top}..\na type=file\n`, 3, /outside of the root/],
    [`${top}a/b type=file\n`, 2, /single path component/],
    [`${top}a\\057b type=file\n`, 2, /single path component/],
    [`${top}a\\000 type=file\n`, 2, /single path component/],
    [`${top}\\056\\056 type=file\n`, 2, /single path component/],
    [`${top}. type=dir\n`, 2, /single path component/],
    [`${top}a\\q type=file\n`, 2, /escape/],
    [`${top}a type=door\n`, 2, /unknown type/],
    [`${top}a type=file uid=-1\n`, 2, /uid/],
    [`${top}a type=file uid=4294967296\n`, 2, /uid/],
    [`${top}a type=file gid=\n`, 2, /gid/],
    [`${top}a type=file size=1e3\n`, 2, /size/],
    [`${top}a type=file mode=0999\n`, 2, /mode/],
    [`${top}a type=file mode=010000\n`, 2, /mode/],
    [`${top}a type=file nlink=x\n`, 2, /nlink/],
    [`${top}a type=file tar_time=now\n`, 2, /time/],
    [`${top}a type=file time=1.x\n`, 2, /time/],
    [`${top}a type=file sha256digest=12\n`, 2, /sha256digest/],
    [`${top}a type=file sha256digest=${'g'.repeat(64)}\n`, 2, /sha256digest/],
    [`${top}a type=link link=\\q\n`, 2, /link target/],
    [`${top}a type=link link=\n`, 2, /link target/],
    [`${top}a type=file xattr.user.a=!\n`, 2, /xattr/],
    ['/include x\n', 1, /neither/],
  ]
  for (const [text, line, reason] of cases)
    t.throws(
      () => parse(text),
      { code: 'ERR_KOCI_INVALID_MTREE', message: reason, details: { line } },
      JSON.stringify(text),
    )
})

await t.test('parsing any bytes gives a record or that error', async () => {
  const word = fc.constantFrom(
    '.',
    '..',
    'a',
    '/set',
    ' ',
    '\n',
    'type=dir',
    'type=file',
    '\\',
    '#',
    '=',
    'mode=0',
    '\n\n# x\n',
  )
  const noise = fc.oneof(word, fc.string({ unit: 'binary', maxLength: 3 }))
  fc.assert(
    fc.property(fc.array(noise, { maxLength: 40 }), words => {
      try {
        parse(words.join(''))
        return true
      } catch (error) {
        return (error as { code?: string }).code === 'ERR_KOCI_INVALID_MTREE'
      }
    }),
    { numRuns: 3000 },
  )
})

const name = fc
  .uint8Array({ minLength: 1, maxLength: 12 })
  .map(bytes => Buffer.from(bytes.map(byte => (byte === 0 || byte === 0x2f ? 0x20 : byte))))
  .filter(bytes => !['.', '..'].includes(bytes.toString('latin1')))

await t.test('names and link targets of any bytes come back', async () => {
  fc.assert(
    fc.property(
      fc.uniqueArray(name, { selector: bytes => bytes.toString('latin1'), maxLength: 8 }),
      name,
      (names, target) => {
        names.sort((a, b) => Buffer.compare(a, b))
        const record = linksTo(names, target)
        const text = textOf(record)
        const back = parseMtree(text, 'test')
        return (
          /^[\n\x20-\x7e]*$/.test(text.toString('latin1')) &&
          names.every((name, at) => back.name(at + 1).equals(name)) &&
          names.every((_, at) => back.extra(at + 1).rawLinkname?.equals(target)) &&
          textOf(back).equals(text)
        )
      },
    ),
    { numRuns: 500 },
  )
})

await t.test('what umoci could not read again is left out', async t => {
  const value = Buffer.alloc(1000, 1)
  const xattr = (length: number) =>
    [Buffer.from(`user.${length}`), Buffer.alloc(length)] as const
  const record = (xattrs: ReadonlyArray<readonly [Buffer, Buffer]>) => {
    const builder = new RecordBuilder()
    const row = builder.add({ ...directory, mode: 0o040755 }, Buffer.from(''), 0, 0)
    builder.setExtra(row, { xattrs })
    builder.leave(row)
    return textOf(builder.finish(0n)).toString()
  }
  t.match(record([xattr(1024)]), 'xattr.user.1024=')
  t.notMatch(record([xattr(1025), xattr(1)]), 'xattr.')
  const names = Array.from(
    { length: 100 },
    (_, at) => [Buffer.from(`user.${at}`), value] as const,
  )
  const long = record(names)
  t.notMatch(long, 'xattr.', 'a line over 64 KiB')
  t.ok(long.split('\n').every(line => line.length < 65536))
})

await t.test('a path too long for a comment is cut', async t => {
  const builder = new RecordBuilder()
  const rows: number[] = []
  for (let depth = 0; depth < 40; depth++)
    rows.push(
      builder.add(
        { ...directory, mode: 0o040755 },
        Buffer.alloc(255, 0xff),
        0,
        depth === 0 ? 0 : 255,
      ),
    )
  for (const row of rows.toReversed()) builder.leave(row)
  const text = textOf(builder.finish(0n))
  t.ok(
    text
      .toString()
      .split('\n')
      .every(line => line.length < 5200),
  )
  t.equal(parseMtree(text, 'test').count, 40)
})

await t.test('umoci finds nothing changed by our text', { skip: withoutUmoci }, async t => {
  const dir = t.testdir({})
  const umoci = (...args: string[]) => {
    const flags = process.getuid?.() === 0 ? [] : ['--rootless']
    const all = args[0] === 'unpack' ? [...args.slice(0, 1), ...flags, ...args.slice(1)] : args
    execFileSync('umoci', all, { cwd: dir, stdio: 'pipe', timeout: 60_000 })
  }
  umoci('init', '--layout', 'image')
  umoci('new', '--image', 'image:t')
  umoci('unpack', '--image', 'image:t', 'b')
  const rootfs = `${dir}/b/rootfs`
  fs.mkdirSync(`${rootfs}/d/sub`, { recursive: true })
  fs.mkdirSync(`${rootfs}/new\nline/sub`, { recursive: true })
  for (const name of ['sp ace', '#h', 'a*b?[', 'back\\', 'new\nl', 'é', '..a'])
    fs.writeFileSync(`${rootfs}/d/${name}`, name)
  fs.writeFileSync(Buffer.concat([Buffer.from(`${rootfs}/d/`), Buffer.from([0xff, 0xfe])]), '')
  fs.symlinkSync('t *\\\n', `${rootfs}/link\\`)
  fs.linkSync(`${rootfs}/d/#h`, `${rootfs}/hard`)
  fs.chmodSync(`${rootfs}/d/é`, 0o4711)
  fs.utimesSync(`${rootfs}/d/é`, 1.5, 1.5)
  fs.chmodSync(`${rootfs}/d/sp ace`, 0o664)

  const [mtree = ''] = fs.readdirSync(`${dir}/b`).filter(name => name.endsWith('.mtree'))
  const text = await inTree(rootfs, async tree => textOf(await recordTree(tree)))
  fs.writeFileSync(`${dir}/b/${mtree}`, text)
  umoci('repack', '--image', 'image:u', 'b')
  t.equal(layersOf(dir, 'u'), 0, 'an empty diff makes no layer')

  fs.writeFileSync(`${rootfs}/d/new`, '')
  umoci('repack', '--refresh-bundle', '--image', 'image:v', 'b')
  t.equal(layersOf(dir, 'v'), 1, 'and a change makes one')
  const [theirs = ''] = fs.readdirSync(`${dir}/b`).filter(name => name.endsWith('.mtree'))
  const own = await inTree(rootfs, async tree => textOf(await recordTree(tree)))
  const written = textOf(parseMtree(fs.readFileSync(`${dir}/b/${theirs}`), theirs))
  t.equal(written.toString(), own.toString(), 'what umoci wrote reads the same')
})

function layersOf(dir: string, tag: string): number {
  const read = (path: string) => JSON.parse(fs.readFileSync(`${dir}/image/${path}`, 'utf8'))
  const blob = (digest: string) => `blobs/${digest.replace(':', '/')}`
  const entry = read('index.json').manifests.find(
    (manifest: { annotations: Record<string, string> }) =>
      manifest.annotations['org.opencontainers.image.ref.name'] === tag,
  )
  return read(blob(entry.digest)).layers.length
}

function linksTo(names: readonly Buffer[], target: Buffer): TreeRecord {
  const builder = new RecordBuilder(1)
  const root = builder.add({ ...directory, mode: 0o040755 }, Buffer.from(''), 0, 0)
  for (const name of names) {
    const row = builder.add({ ...directory, nlink: 1, mode: 0o120777 }, name, 0, name.length)
    builder.setExtra(row, { rawLinkname: target })
  }
  builder.leave(root)
  return builder.finish(0n)
}
