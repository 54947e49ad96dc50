// Names, links, special files and orders of entries that are meant to confuse, as catalogued by their ids.
// Each sequence is tried as one layer, and as two cut at every place: what came from a lower layer is no less hostile.
import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { makeSandbox } from '../../support/extract.ts'
import type { TarMember } from '../../support/tar-builder.ts'
import { describeTree } from '../../support/tree.ts'

const isRoot = process.getuid?.() === 0

const file = (name: string | Buffer, body = '', rest: Partial<TarMember> = {}): TarMember => ({
  name,
  body,
  ...rest,
})
const dir = (name: string | Buffer, rest: Partial<TarMember> = {}): TarMember => ({
  name,
  type: 'directory',
  ...rest,
})
const link = (name: string, linkname: string | Buffer): TarMember => ({
  name,
  type: 'symlink',
  linkname,
})
const hard = (name: string, linkname: string, rest: Partial<TarMember> = {}): TarMember => ({
  name,
  type: 'hardlink',
  linkname,
  ...rest,
})
const fifo = (name: string): TarMember => ({ name, type: 'fifo' })
const device = (name: string): TarMember => ({ name, type: 'char', devmajor: 1, devminor: 3 })

interface Case {
  readonly name: string
  readonly members: readonly TarMember[]
  /** What is in the rootfs afterwards: `path type` and what `describe` below adds. */
  readonly tree?: readonly string[]
  /** The code without its prefix. */
  readonly error?: string
  readonly cause?: string
  /** What must be there after an error. */
  readonly kept?: readonly string[]
  readonly root?: boolean
  readonly keepDirlinks?: boolean
}

const names: Case[] = [
  { name: 'N01 a name that climbs', members: [file('../../x')], error: 'PATH_ESCAPE' },
  {
    name: 'N01 a name that climbs in the middle',
    members: [file('a/../../x')],
    error: 'PATH_ESCAPE',
  },
  {
    name: 'N02 absolute names',
    members: [file('/abs/x'), file('//y'), file('/./z')],
    tree: ['abs dir', 'abs/x file', 'y file', 'z file'],
  },
  { name: 'N04 the root as a file', members: [file('.')], error: 'INVALID_ENTRY' },
  {
    name: 'N04 the root as a symlink',
    members: [link('/', '../canary')],
    error: 'INVALID_ENTRY',
  },
  {
    name: 'N04 the root as a hard link',
    members: [file('a'), hard('./', 'a')],
    error: 'INVALID_ENTRY',
  },
  {
    name: 'N05 a component of 255 bytes',
    members: [file('n'.repeat(255))],
    tree: [`${'n'.repeat(255)} file`],
  },
  {
    name: 'N05 a component of 256 bytes',
    members: [file('n'.repeat(256))],
    error: 'IO',
    cause: 'ENAMETOOLONG',
  },
  {
    name: 'N06 control characters',
    members: [file('a\nb\t\\"*\x1b[31m')],
    tree: [String.raw`a\nb\t\"*\x1b[31m file`],
  },
  {
    name: 'N07 invalid UTF-8, and names that normalise to the same',
    members: [file(Buffer.from([0xff])), file('é'), file('e\u0301')],
    tree: ['e\u0301 file', 'é file', String.raw`\xff file`],
  },
  {
    name: 'N08 a parent that is a symlink',
    members: [
      dir('real'),
      link('rel', 'real'),
      link('abs', '/real'),
      link('chain', 'abs'),
      file('rel/a'),
      file('abs/b'),
      file('chain/c'),
    ],
    tree: [
      'abs link -> /real',
      'chain link -> abs',
      'real dir',
      'real/a file',
      'real/b file',
      'real/c file',
      'rel link -> real',
    ],
  },
  {
    name: 'N09 a parent that is a symlink to the outside',
    members: [dir('canary'), link('out', '../../../../canary'), file('out/x')],
    tree: ['canary dir', 'canary/x file', 'out link -> ../../../../canary'],
  },
  {
    name: 'N09 a parent that is an absolute symlink to what exists only outside',
    members: [link('out', '/tmp'), file('out/x')],
    tree: ['out link -> /tmp', 'tmp dir', 'tmp/x file'],
  },
  {
    name: 'N11 a loop of symlinks for a parent',
    members: [link('a', 'b'), link('b', 'a'), file('a/x')],
    error: 'IO',
    cause: 'ELOOP',
    kept: ['a link -> b', 'b link -> a'],
  },
  {
    name: 'N12 a dangling symlink for a parent',
    members: [link('a', 'nope/deep'), file('a/x')],
    tree: ['a link -> nope/deep', 'nope dir', 'nope/deep dir', 'nope/deep/x file'],
  },
  {
    name: 'N13 a file for a parent',
    members: [file('a', 'old'), file('a/x')],
    tree: ['a dir', 'a/x file'],
  },
  {
    name: 'N13 a fifo for a parent',
    members: [fifo('a'), file('a/x')],
    tree: ['a dir', 'a/x file'],
  },
  {
    name: 'N13 a symlink to a file for a parent',
    members: [file('f', 'old'), link('a', 'f'), file('a/x')],
    tree: ['a link -> f', 'f dir', 'f/x file'],
  },
  {
    name: 'N14 parents that are missing',
    members: [file('a/b/c')],
    tree: ['a dir', 'a/b dir', 'a/b/c file'],
  },
  {
    name: 'N15 names that begin like earlier ones',
    members: [file('a'), file('aa'), file('aaa/b'), file('aaa.c')],
    tree: ['a file', 'aa file', 'aaa dir', 'aaa/b file', 'aaa.c file'],
  },
  {
    name: 'N16 a directory with a whiteout’s name',
    members: [file('.wh.a/x')],
    tree: ['.wh.a dir', '.wh.a/x file'],
  },
  {
    name: 'N18 names of magic links',
    members: [file('proc/self/root/x'), file('dev/fd/9')],
    tree: [
      'dev dir',
      'dev/fd dir',
      'dev/fd/9 file',
      'proc dir',
      'proc/self dir',
      'proc/self/root dir',
      'proc/self/root/x file',
    ],
  },
  {
    name: 'N20 dots and slashes',
    members: [file('./././a'), file('b//c'), file('d/../e')],
    tree: ['a file', 'b dir', 'b/c file', 'e file'],
  },
]

const links: Case[] = [
  {
    name: 'L01 a hard link to an absolute path',
    members: [hard('h', '/etc/hostname')],
    error: 'INVALID_ENTRY',
  },
  {
    name: 'L01 a hard link that climbs',
    members: [hard('h', '../canary/file')],
    error: 'PATH_ESCAPE',
  },
  {
    name: 'L02 a hard link through a symlink to the outside',
    members: [link('s', '../../canary'), hard('h', 's/file')],
    error: 'INVALID_ENTRY',
  },
  {
    name: 'L03 a hard link to a symlink, then a file of its name',
    members: [file('f', 'old'), link('s', 'f'), hard('h', 's'), file('h', 'new')],
    tree: ['f file old', 'h file new', 's link -> f'],
  },
  {
    name: 'L04 a hard link to a symlink is the symlink',
    members: [link('s', '../canary/file'), hard('h', 's', { mode: 0o777, mtime: 5 })],
    tree: ['h link -> ../canary/file', 's link -> ../canary/file =h'],
  },
  {
    name: 'L05 a hard link to a directory',
    members: [dir('d'), hard('h', 'd')],
    error: 'INVALID_ENTRY',
    kept: ['d dir'],
  },
  { name: 'L05 a hard link to the root', members: [hard('h', '/')], error: 'INVALID_ENTRY' },
  { name: 'L06 a hard link to nothing', members: [hard('h', 'x')], error: 'INVALID_ENTRY' },
  {
    name: 'L06 a hard link to nothing keeps what it would replace',
    members: [file('h', 'kept'), hard('h', 'x')],
    error: 'INVALID_ENTRY',
    kept: ['h file kept'],
  },
  {
    name: 'L06 a hard link to a directory keeps what it would replace',
    members: [dir('d'), file('h', 'kept'), hard('h', 'd')],
    error: 'INVALID_ENTRY',
    kept: ['d dir', 'h file kept'],
  },
  {
    name: 'L07 a hard link to itself',
    members: [file('a', 'kept'), hard('a', './a')],
    error: 'INVALID_ENTRY',
    kept: ['a file kept'],
  },
  {
    name: 'L07 a hard link to itself through a symlink',
    members: [file('d/a', 'kept'), link('s', 'd'), hard('s/a', 'd/a')],
    error: 'INVALID_ENTRY',
    kept: ['d dir', 'd/a file kept', 's link -> d'],
  },
  {
    name: 'L07 a hard link that would replace the directory of its target',
    members: [file('d/a', 'kept'), hard('d', 'd/a')],
    error: 'INVALID_ENTRY',
    kept: ['d dir', 'd/a file kept'],
  },
  {
    name: 'L09 a file over a hard link breaks it',
    members: [file('a', 'four'), hard('h', 'a'), file('h', 'new')],
    tree: ['a file four', 'h file new'],
  },
  {
    name: 'L10 a chain of hard links',
    members: [file('a', 'x'), hard('b', 'a'), hard('c', 'b')],
    tree: ['a file x', 'b file x =a', 'c file x =a'],
  },
  {
    name: 'L10 the same hard link twice',
    members: [file('a', 'x'), hard('b', 'a'), hard('b', 'a')],
    tree: ['a file x', 'b file x =a'],
  },
  {
    name: 'L11 metadata of a hard link is ignored',
    members: [file('a', 'x', { mode: 0o600 }), hard('h', 'a', { mode: 0o777 })],
    tree: ['a file x', 'h file x =a'],
  },
  {
    name: 'L13 a hard link to a fifo',
    members: [fifo('a'), hard('h', 'a')],
    tree: ['a fifo', 'h fifo =a'],
  },
  { name: 'L17 a symlink to nothing at all', members: [link('s', '')], error: 'INVALID_ENTRY' },
  {
    name: 'L17 targets of symlinks are verbatim',
    members: [
      link('a', '../../../../etc/passwd'),
      link('b', '/etc/shadow'),
      link('c', 'x'.repeat(4095)),
      link('d', Buffer.from([0xff, 0x0a])),
    ],
    tree: [
      'a link -> ../../../../etc/passwd',
      'b link -> /etc/shadow',
      `c link -> ${'x'.repeat(4095)}`,
      String.raw`d link -> \xff\n`,
    ],
  },
  {
    name: 'L17 a symlink’s target of 4096 bytes',
    members: [link('s', 'x'.repeat(4096))],
    error: 'IO',
    cause: 'ENAMETOOLONG',
  },
  {
    name: 'L18 a symlink, then a file of its name',
    members: [link('s', '../canary/file'), file('s', 'new')],
    tree: ['s file new'],
  },
  {
    name: 'L19 a symlink, then a directory of its name',
    members: [link('s', '../canary'), dir('s'), dir('s/.'), file('s/x')],
    tree: ['s dir', 's/x file'],
  },
  {
    name: 'L19 a symlink to a directory, then a directory of its name',
    members: [dir('d'), link('s', 'd'), dir('s'), file('s/x')],
    tree: ['d dir', 's dir', 's/x file'],
  },
  {
    name: 'keepDirlinks: a symlink to a directory is kept',
    keepDirlinks: true,
    members: [dir('d'), link('s', 'd'), dir('s'), file('s/x')],
    tree: ['d dir', 'd/x file', 's link -> d'],
  },
  {
    name: 'keepDirlinks: a dangling symlink is not',
    keepDirlinks: true,
    members: [link('s', 'd'), link('l', 'l'), dir('s'), dir('l')],
    tree: ['l dir', 's dir'],
  },
  {
    name: 'L20 a directory that is not empty, then a symlink of its name',
    members: [file('d/sub/x'), link('d', '../canary'), file('e')],
    tree: ['d link -> ../canary', 'e file'],
  },
  {
    name: 'L22 going up by links of links',
    members: [
      dir('inner'),
      link('inner/up', '..'),
      link('inner/up/escape', '../canary'),
      file('inner/up/escape/new'),
    ],
    tree: [
      'canary dir',
      'canary/new file',
      'escape link -> ../canary',
      'inner dir',
      'inner/up link -> ..',
    ],
  },
  {
    name: 'S04 a parent becomes a symlink between its children (CVE-2025-47290)',
    members: [file('d/a'), link('d', '../canary'), file('d/b')],
    tree: ['canary dir', 'canary/b file', 'd link -> ../canary'],
  },
  {
    name: 'S04 a grandparent becomes a symlink between',
    members: [file('d/e/a'), link('d', '/x'), file('d/e/b')],
    tree: ['d link -> /x', 'x dir', 'x/e dir', 'x/e/b file'],
  },
  {
    name: 'S04 a symlinked parent is pointed elsewhere',
    members: [
      dir('one'),
      dir('two'),
      link('l', 'one'),
      file('l/a'),
      link('l', 'two'),
      file('l/b'),
    ],
    tree: ['l link -> two', 'one dir', 'one/a file', 'two dir', 'two/b file'],
  },
  {
    name: 'S04 the target of a symlinked parent is replaced',
    members: [link('l', 'd/e'), file('l/a'), file('d'), file('l/b')],
    tree: ['d dir', 'd/e dir', 'd/e/b file', 'l link -> d/e'],
  },
]

const orders: Case[] = [
  {
    name: 'S01 the last of several files counts',
    members: [file('a', 'one'), file('a', 'two')],
    tree: ['a file two'],
  },
  {
    name: 'S01 every type over every other',
    members: [
      file('a', 'x'),
      dir('a'),
      link('a', 'x'),
      fifo('a'),
      file('a', 'y'),
      link('a', 'z'),
    ],
    tree: ['a link -> z'],
  },
  {
    name: 'S01 a directory twice keeps its content',
    members: [dir('d'), file('d/x'), dir('d')],
    tree: ['d dir', 'd/x file'],
  },
  {
    name: 'S03 directories without permissions before their children',
    members: [dir('d', { mode: 0 }), dir('d/e', { mode: 0o555 }), file('d/e/x'), file('d/y')],
    tree: ['d dir', 'd/e dir', 'd/e/x file', 'd/y file'],
  },
  {
    name: 'S05 a directory that is not empty, then a file',
    members: [file('d/sub/x'), file('d', 'new')],
    tree: ['d file new'],
  },
  {
    name: 'S06 a file, then a directory',
    members: [file('d', 'old'), dir('d'), file('d/x')],
    tree: ['d dir', 'd/x file'],
  },
  {
    name: 'S07 children before their parents',
    members: [file('d/e/x'), dir('d/e'), dir('d')],
    tree: ['d dir', 'd/e dir', 'd/e/x file'],
  },
  {
    name: 'X04 a fifo, then a file of its name, is no wait',
    members: [fifo('p'), file('p', 'data')],
    tree: ['p file data'],
  },
  {
    name: 'X04 a file, then a fifo',
    members: [file('p', 'data'), fifo('p')],
    tree: ['p fifo'],
  },
  {
    name: 'X01 devices',
    root: true,
    members: [
      device('dev/null'),
      { name: 'b', type: 'block', devmajor: 4095, devminor: 1048575 },
    ],
    tree: ['b block 4095,1048575', 'dev dir', 'dev/null char 1,3'],
  },
  {
    name: 'X01 a device number that does not exist',
    members: [{ name: 'c', type: 'char', devmajor: 4096 }],
    error: 'INVALID_ENTRY',
  },
  {
    name: 'X03 a device 0:0 is an ordinary one here',
    root: true,
    members: [{ name: 'c', type: 'char' }],
    tree: ['c char 0,0'],
  },
  {
    name: 'X13 a contiguous file',
    members: [{ name: 'f', type: 'contiguous', body: 'x' }],
    tree: ['f file x'],
  },
  {
    name: 'A02 a uid that means "unchanged"',
    members: [file('f', '', { uid: 4294967295 })],
    error: 'INVALID_ENTRY',
  },
]

function describe(rootfs: string): string[] {
  return describeTree(rootfs, { times: false, xattrs: false, root: false }).map(line =>
    line.replace(/^(.*? (?:file|dir|link|char|block|fifo)) \d+ \d+:\d+/, '$1'),
  )
}

/** The bodies are compared by what a test can read: the hash of each is looked up. */
const bodies = new Map<string, string>()
for (const { members } of [...names, ...links, ...orders])
  for (const { body = '' } of members) bodies.set(hashOf(body.toString()), body.toString())

function hashOf(body: string): string {
  const dir = mkdtempSync(join(tmpdir(), 'koci-body-'))
  try {
    const sandbox = makeSandbox(dir)
    sandbox.apply([[file('b', body)]], { rootless: !isRoot })
    return describe(sandbox.rootfs)[0]?.replace('b file ', '') ?? ''
  } finally {
    rmSync(dir, { recursive: true })
  }
}

function readable(line: string): string {
  return line.replace(/ (\d+ [0-9a-f]{16})/, (_, body: string) => {
    const text = bodies.get(body) ?? body
    return text === '' ? '' : ` ${text}`
  })
}

for (const [group, cases] of Object.entries({ names, links, orders }))
  await t.test(`hostile ${group}`, async t => {
    for (const { name, members, tree, error, cause, kept, root, keepDirlinks } of cases) {
      const skip = root === true && !isRoot && 'needs root: mknod'
      await t.test(name, { skip }, async t => {
        for (let cut = members.length; cut > 0; cut -= 1) {
          const base = mkdtempSync(join(tmpdir(), 'koci-hostile-'))
          try {
            const sandbox = makeSandbox(base)
            const layers = [members.slice(0, cut), members.slice(cut)].filter(l => l.length > 0)
            const apply = () =>
              sandbox.apply(layers, {
                keepDirlinks: keepDirlinks ?? false,
                // an ordinary user can't give root what nobody has an entry for
                rootless: !isRoot,
              })
            const label = `cut at ${cut} of ${members.length}`
            if (error === undefined) apply()
            else
              t.throws(
                apply,
                {
                  code: `ERR_KOCI_${error}`,
                  ...(cause === undefined ? {} : { cause: { code: cause } }),
                },
                label,
              )
            if (!isRoot) execFileSync('chmod', ['-R', 'u+rwX', sandbox.rootfs])
            const expected = tree ?? kept
            if (expected !== undefined)
              t.strictSame(describe(sandbox.rootfs).map(readable), expected, label)
            t.notOk(sandbox.escaped(), `nothing outside was touched, ${label}`)
          } finally {
            rmSync(base, { recursive: true, force: true })
          }
        }
      })
    }
  })
