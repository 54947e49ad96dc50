// Who a container runs as: the image's `user[:group]`, looked up in the rootfs's own /etc/passwd and /etc/group.
// Both are the image's: they are read inside the rootfs only, bounded, and what isn't a plain number is no id.
import { createError } from '../errors.ts'
import { readFileInRoot } from '../fs/read-file.ts'
import type { Rooted } from '../fs/rooted.ts'

/** A resolved user. */
export interface User {
  readonly uid: number
  readonly gid: number
  /** Of the groups that list the user; empty if the image names a group. */
  readonly additionalGids: readonly number[]
  /** From /etc/passwd, if the user is there and has one. */
  readonly home: string | undefined
  /** There was no rootfs to look a name up in: 0 was taken. */
  readonly isGuess: boolean
}

/** The largest id that a runtime takes: ids are signed in many places (CVE-2024-40635). */
const maxID = 2 ** 31 - 1
const maxFileBytes = 4 * 1024 * 1024

/**
 * Resolves `user`, `user:group`, `uid`, `uid:gid` and mixtures; numbers are always ids, and need no entry.
 * Empty means user 0. The first entry that matches counts. Missing files are no error.
 * @throws {NotFoundError} ERR_KOCI_USER_NOT_FOUND a name that isn't there
 * @throws {FormatError} ERR_KOCI_INVALID_CONFIG an id over 2^31-1, more than one colon; ERR_KOCI_INVALID_BUNDLE
 * /etc/passwd or /etc/group isn't a regular file; {LimitError} it is too large
 */
export function resolveUser(spec: string, root?: Rooted): User {
  const [userPart = '', groupPart = '', ...more] = spec.split(':')
  if (more.length > 0) throw invalid(spec, 'more than one colon')
  const uid = parseID(userPart || '0', spec)
  const account = findAccount(root, entry =>
    uid === undefined ? entry.name === userPart : entry.uid === uid,
  )
  if (uid === undefined && !account && root) throw notFound(userPart, 'user')

  const gid = parseID(groupPart, spec)
  const group =
    groupPart === '' ? undefined : findGroup(root, groupPart, gid, root !== undefined)
  return {
    uid: account?.uid ?? uid ?? 0,
    gid: group ?? account?.gid ?? 0,
    additionalGids: groupPart === '' && account ? groupsOf(root, account.name) : [],
    home: account?.home || undefined,
    isGuess: !root && (uid === undefined || (groupPart !== '' && gid === undefined)),
  }
}

interface Account {
  readonly name: string
  readonly uid: number
  readonly gid: number
  readonly home: string
}

interface Group {
  readonly name: string
  readonly gid: number
  readonly members: readonly string[]
}

function findAccount(
  root: Rooted | undefined,
  isWanted: (entry: Account) => boolean,
): Account | undefined {
  for (const [name = '', , uid, gid, , home = ''] of readTable(root, 'etc/passwd')) {
    const entry = { name, uid: toID(uid), gid: toID(gid), home }
    if (entry.uid !== undefined && entry.gid !== undefined && isWanted(entry as Account))
      return entry as Account
  }
  return undefined
}

function findGroup(
  root: Rooted | undefined,
  name: string,
  gid: number | undefined,
  isRequired: boolean,
): number {
  if (gid !== undefined) return gid
  const group = readGroups(root).find(entry => entry.name === name)
  if (!group && isRequired) throw notFound(name, 'group')
  return group?.gid ?? 0
}

function groupsOf(root: Rooted | undefined, user: string): number[] {
  return readGroups(root)
    .filter(({ members }) => members.includes(user))
    .map(({ gid }) => gid)
}

function readGroups(root: Rooted | undefined): Group[] {
  return readTable(root, 'etc/group').flatMap(([name = '', , id, members = '']) => {
    const gid = toID(id)
    return gid === undefined ? [] : [{ name, gid, members: members.split(',') }]
  })
}

function readTable(root: Rooted | undefined, path: string): string[][] {
  const content = root && readFileInRoot(root, path, { maxBytes: maxFileBytes })
  return (content?.toString() ?? '')
    .split('\n')
    .map(line => line.trim())
    .filter(line => line !== '' && !line.startsWith('#'))
    .map(line => line.split(':'))
}

/** The number that a part of the spec is; undefined if it is a name. */
function parseID(text: string, spec: string): number | undefined {
  if (!/^\d+$/.test(text)) {
    if (/^[-+]\d+$/.test(text)) throw invalid(spec, `${text} is not an id`)
    return undefined
  }
  const id = toID(text)
  if (id === undefined) throw invalid(spec, `id ${text.slice(0, 20)} is over ${maxID}`)
  return id
}

/** An id from a table; undefined if it is malformed: never 0 by mistake. */
function toID(text: string | undefined): number | undefined {
  if (text === undefined || !/^\d+$/.test(text)) return undefined
  const id = Number(text)
  return id <= maxID ? id : undefined
}

function invalid(spec: string, reason: string): Error {
  return createError('INVALID_CONFIG', { subject: `user ${spec.slice(0, 100)}`, reason })
}

function notFound(name: string, kind: string): Error {
  return createError('USER_NOT_FOUND', { subject: name.slice(0, 100), kind })
}
