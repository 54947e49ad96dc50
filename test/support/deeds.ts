// Things done to a tree at random, one after the other: whatever a program can do to names, contents and metadata. What the
// kernel refuses is nothing.
import * as fs from 'node:fs'
import path from 'node:path'
import * as fc from 'fast-check'
import {
  AT_FDCWD,
  cstring,
  fchownat,
  mknodat,
  RENAME_EXCHANGE,
  renameat2,
  S_IFCHR,
  S_IFIFO,
  S_IFSOCK,
} from '../../lib/fs/libc.ts'
import * as sys from '../../lib/fs/syscall.ts'
import { removexattr, setxattr } from '../../lib/fs/xattr-calls.ts'

const kinds = [
  'write',
  'write',
  'append',
  'truncate',
  'overwrite unseen',
  'clone',
  'chmod',
  'chown',
  'touch',
  'touch back',
  'mkdir',
  'mkdir',
  'fill',
  'remove',
  'remove tree',
  'rename',
  'rename',
  'exchange',
  'link',
  'symlink',
  'special',
  'set attribute',
  'remove attribute',
] as const

/** One of them. */
export interface Deed {
  readonly kind: (typeof kinds)[number]
  readonly one: string
  readonly other: string
  readonly value: number
}

const anyPath = fc
  .array(fc.constantFrom('a', 'b', '\xff'), { minLength: 1, maxLength: 3 })
  .map(names => names.join('/'))

/** Any of them. */
export const anyDeed: fc.Arbitrary<Deed> = fc.record({
  kind: fc.constantFrom(...kinds),
  one: anyPath,
  other: anyPath,
  value: fc.nat(6),
})

/** Does all of it in a directory, as root. */
export function doAll(directory: string, deeds: readonly Deed[]): void {
  for (const deed of deeds)
    try {
      doOne(directory, deed)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === undefined) throw error
    }
}

function doOne(directory: string, { kind, one, other, value }: Deed): void {
  const at = (name: string): Buffer => Buffer.from(path.join(directory, name), 'latin1')
  const [target, second] = [at(one), at(other)]
  const [name, secondName] = [cstring(target), cstring(second)]
  const attribute = cstring(`user.${value % 2}`)
  const opens = ['write', 'append', 'truncate', 'overwrite unseen', 'clone'].includes(kind)
  // a fifo would be waited for
  if (opens && fs.statSync(target, { throwIfNoEntry: false })?.isFile() === false) return
  if (kind === 'clone' && fs.statSync(second, { throwIfNoEntry: false })?.isFile() === false)
    return
  if (kind === 'write') fs.writeFileSync(target, `${value}`.repeat(value * 2000))
  else if (kind === 'append') fs.appendFileSync(target, `${value}`)
  else if (kind === 'truncate') fs.truncateSync(target, value * 1500)
  else if (kind === 'overwrite unseen') {
    const { atime, mtime, size } = fs.lstatSync(target)
    fs.writeFileSync(target, `${value}`.repeat(size), { flag: 'r+' })
    fs.utimesSync(target, atime, mtime)
  } else if (kind === 'clone') fs.copyFileSync(target, second, fs.constants.COPYFILE_FICLONE)
  else if (kind === 'chmod') fs.chmodSync(target, 0o700 + value)
  else if (kind === 'chown') fchownat(AT_FDCWD, name, value, value)
  else if (kind === 'touch') fs.lutimesSync(target, value, value)
  else if (kind === 'touch back') {
    const { atime, mtime } = fs.lstatSync(target)
    fs.lutimesSync(target, 1, 1)
    fs.lutimesSync(target, atime, mtime)
  } else if (kind === 'mkdir') fs.mkdirSync(target)
  else if (kind === 'fill')
    for (let index = 0; index < value; index += 1)
      fs.writeFileSync(at(`${one}/${index}`), `${index}`)
  else if (kind === 'remove') sys.unlinkat(AT_FDCWD, name, 0)
  else if (kind === 'remove tree') fs.rmSync(target, { recursive: true })
  else if (kind === 'rename') fs.renameSync(target, second)
  else if (kind === 'exchange') renameat2(AT_FDCWD, name, AT_FDCWD, secondName, RENAME_EXCHANGE)
  else if (kind === 'link') fs.linkSync(target, second)
  else if (kind === 'symlink') fs.symlinkSync(other, target)
  else if (kind === 'special')
    mknodat(
      AT_FDCWD,
      name,
      ([S_IFIFO, S_IFSOCK, S_IFCHR][value % 3] ?? 0) | 0o600,
      value,
      value,
    )
  else if (kind === 'set attribute') setxattr(name, attribute, Buffer.from(`${value}`))
  else removexattr(name, attribute)
}
