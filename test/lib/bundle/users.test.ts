import { execFileSync } from 'node:child_process'
import * as fs from 'node:fs'
import t from 'tap'
import { resolveUser, type User } from '../../../lib/bundle/users.ts'
import { openRooted } from '../../../lib/fs/rooted.ts'

const passwd = `# users
root:x:0:0:root:/root:/bin/sh

daemon:x:1:1::/usr/sbin:/bin/sh
app:x:1000:1001::/home/app:/bin/sh
app:x:7:7::/second:/bin/sh
twin:x:1000:1002::/twin:/bin/sh
nohome:x:5:5:::
broken:x:abc:0::/broken:
huge:x:4294967295:0::/huge:
hugegid:x:8:4294967296::/huge:
2000:x:3:3::/numeric:
short:x:9:9
`
const group = `root:x:0:
wheel:x:10:root,app
audio:x:29:app,twin
app:x:1001:
bad:x:-1:app
huge:x:2147483648:app
1500:x:6:
`

function inRoot(root: string, spec: string): User {
  const tree = openRooted(root)
  try {
    return resolveUser(spec, tree)
  } finally {
    tree.close()
  }
}

const etc = t.testdir({ etc: { passwd, group } })

await t.test('users and groups', async t => {
  const cases: Array<[spec: string, uid: number, gid: number, more: number[], home?: string]> =
    [
      ['', 0, 0, [10], '/root'],
      ['root', 0, 0, [10], '/root'],
      ['0', 0, 0, [10], '/root'],
      [':', 0, 0, [10], '/root'],
      ['app', 1000, 1001, [10, 29], '/home/app'],
      ['1000', 1000, 1001, [10, 29], '/home/app'],
      ['001000', 1000, 1001, [10, 29], '/home/app'],
      ['twin', 1000, 1002, [29], '/twin'],
      ['app:audio', 1000, 29, [], '/home/app'],
      ['app:29', 1000, 29, [], '/home/app'],
      ['app:0', 1000, 0, [], '/home/app'],
      [':audio', 0, 29, [], '/root'],
      ['1234', 1234, 0, []],
      ['1234:5678', 1234, 5678, []],
      ['2147483647:2147483647', 2147483647, 2147483647, []],
      ['2000', 2000, 0, []],
      ['app:1500', 1000, 1500, [], '/home/app'],
      ['nohome', 5, 5, []],
      ['short', 9, 9, []],
    ]
  for (const [spec, uid, gid, additionalGids, home] of cases)
    t.same(
      inRoot(etc, spec),
      { uid, gid, additionalGids, home, isGuess: false },
      spec || 'empty',
    )
})

await t.test('CVE-2024-40635: what is no id or no name is never user 0', async t => {
  const invalid = ['2147483648', '4294967295', '4294967296', '-1', '+1', '0:4294967295', '0:-1']
  for (const spec of [...invalid, '99999999999999999999', '1:2:3', 'a:b:'])
    t.throws(() => inRoot(etc, spec), { code: 'ERR_KOCI_INVALID_CONFIG' }, spec)
  for (const spec of [
    '1e9',
    '0x0',
    ' 0',
    '0 ',
    '٣',
    'nobody',
    'App',
    'root\n',
    'broken',
    'huge',
    'hugegid',
    '#',
    '*',
  ])
    t.throws(() => inRoot(etc, spec), { code: 'ERR_KOCI_USER_NOT_FOUND' }, spec)
  for (const spec of ['0:nogroup', 'app:bad', 'app:huge', '0: 0'])
    t.throws(() => inRoot(etc, spec), { code: 'ERR_KOCI_USER_NOT_FOUND' }, spec)
})

await t.test('missing files are no error for ids', async t => {
  const root = t.testdir({})
  t.match(inRoot(root, ''), { uid: 0, gid: 0, home: undefined, additionalGids: [] })
  t.match(inRoot(root, '5:6'), { uid: 5, gid: 6 })
  t.throws(() => inRoot(root, 'app'), { code: 'ERR_KOCI_USER_NOT_FOUND' })
})

await t.test('without a rootfs names are guessed, and it says so', async t => {
  t.match(resolveUser('app'), { uid: 0, gid: 0, isGuess: true })
  t.match(resolveUser('5:app'), { uid: 5, gid: 0, isGuess: true })
  t.match(resolveUser('5:6'), { uid: 5, gid: 6, isGuess: false })
  t.match(resolveUser(''), { uid: 0, gid: 0, isGuess: false })
})

await t.test(
  'CVE-2024-9676: /etc/passwd can be anything, and is read inside the rootfs only',
  async t => {
    const home = t.testdir({
      secret: 'app:x:66:66::/outside:',
      root: { etc: {}, real: passwd },
    })
    const root = `${home}/root`
    const file = `${root}/etc/passwd`
    const cases: Array<[name: string, make: () => void, expected: object | RegExp]> = [
      [
        'a link out of the rootfs',
        () => fs.symlinkSync('../../secret', file),
        /USER_NOT_FOUND/,
      ],
      ['an absolute link', () => fs.symlinkSync(`${home}/secret`, file), /USER_NOT_FOUND/],
      ['a link inside', () => fs.symlinkSync('/real', file), { uid: 1000 }],
      [
        'a link with more .. than there are levels',
        () => fs.symlinkSync('../../../../real', file),
        { uid: 1000 },
      ],
      ['a loop of links', () => fs.symlinkSync('passwd', file), /ERR_KOCI_IO/],
      ['a directory', () => fs.mkdirSync(file), /INVALID_BUNDLE/],
      ['a fifo', () => execFileSync('mkfifo', [file]), /INVALID_BUNDLE/],
      [
        'a sparse file of 10 GiB',
        () => (fs.writeFileSync(file, ''), fs.truncateSync(file, 10 * 2 ** 30)),
        /LIMIT_EXCEEDED/,
      ],
    ]
    if (process.getuid?.() === 0)
      cases.push([
        'a device',
        () => execFileSync('mknod', [file, 'c', '1', '5']),
        /INVALID_BUNDLE/,
      ])
    for (const [name, make, expected] of cases) {
      make()
      try {
        if (expected instanceof RegExp)
          t.throws(() => inRoot(root, 'app'), { code: expected }, name)
        else t.match(inRoot(root, 'app'), expected, name)
      } finally {
        fs.rmSync(file, { recursive: true, force: true })
      }
    }
  },
)
