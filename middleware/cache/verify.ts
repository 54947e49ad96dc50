// Verification: every name, byte, mode, owner, attribute and time of a stored layer against its record. Nothing is trusted
// for being as old as it was.
import { readdirSync } from 'node:fs'
import { compareTree } from '../../lib/bundle/compare-tree.ts'
import type { TreeRecord } from '../../lib/bundle/record.ts'
import { withTree } from '../../lib/fs/open-tree.ts'
import type { Problem, Verdict, VerifyOptions } from '../../lib/stored-layers.ts'
import { toText } from '../../lib/text.ts'
import { isTrusted, readCompletion } from './completion.ts'
import { isDirectory } from './files.ts'
import { isSeenAlike, nameOfKey } from './key.ts'
import type { Store } from './store.ts'

/**
 * Verifies layers, one after the other. Repaired is what isn't in use by a running process; the files of a layer that is
 * mounted stay as long as it is.
 * @throws {SystemError} ERR_KOCI_IO, ERR_KOCI_ABORTED
 */
export async function* verify(
  store: Store,
  options: VerifyOptions = {},
): AsyncGenerator<Verdict, void, undefined> {
  for (const name of options.names ?? store.allNames()) {
    const verdict = await verifyLayer(store, name, options.signal)
    const isRepaired = verdict.state === 'damaged' && options.repair === true
    yield isRepaired ? { ...verdict, repaired: await repair(store, name) } : verdict
  }
}

const kinds = { M: 'changed', A: 'added', D: 'missing' } as const

async function verifyLayer(
  store: Store,
  name: string,
  signal: AbortSignal | undefined,
): Promise<Verdict> {
  using lock = store.tryLock(name, { shared: true })
  const found = readCompletion(store.completion(name))
  const verdict = (state: Verdict['state'], ...problems: Problem[]): Verdict => ({
    name,
    diffID: found?.diffID,
    state,
    problems,
    repaired: false,
  })
  if (!lock) return verdict('busy')
  const isNamed = found !== undefined && (found.key === null || nameOfKey(found.key) === name)
  if (!isNamed) return verdict('damaged', { kind: 'no record', path: '' })
  if (!isTrusted(found)) return verdict('outdated')
  const subject = store.tree(name)
  if (!isDirectory(subject)) return verdict('damaged', { kind: 'no tree', path: '' })
  if (!isSeenAlike(found)) return verdict('elsewhere')
  const record = await store.load(name, found)
  if (!record) return verdict('damaged', { kind: 'no record', path: '' })
  // then no stat proves anything
  record.freshTime = -(2n ** 63n)
  const options = { verifyContent: true, subject, signal }
  const inodes = record.columns.ino.slice()
  const changes = await withTree(subject, root => compareTree(root, record, options))
  const problems = changes.map(({ kind, path }): Problem => ({ kind: kinds[kind], path }))
  if (problems.length === 0) problems.push(...relinked(record, inodes))
  for (const other of readdirSync(store.layer(name)))
    if (other !== 'tree' && other !== 'record')
      problems.push({ kind: 'added', path: `../${other}` })
  return verdict(problems.length === 0 ? 'good' : 'damaged', ...problems)
}

/** Names that were one file and aren't, among others that look the same; `inodes` is what was recorded of those in `record`. */
function* relinked(record: TreeRecord, inodes: BigUint64Array): Generator<Problem> {
  const { nlink, ino } = record.columns
  const was = new Map<bigint, bigint>()
  const is = new Map<bigint, bigint>()
  for (let row = 0; row < record.count; row++) {
    if (record.isDirectory(row) || (nlink[row] as number) < 2) continue
    const before = inodes[row] as bigint
    const now = ino[row] as bigint
    if (!was.has(now)) was.set(now, before)
    if (!is.has(before)) is.set(before, now)
    if (was.get(now) !== before || is.get(before) !== now)
      yield { kind: 'changed', path: toText(record.path(row)) }
  }
}

async function repair(store: Store, name: string): Promise<boolean> {
  using lock = store.tryLock(name, { shared: false })
  if (!lock) return false
  await store.retire(name)
  return true
}
