// Verification: every name, byte, mode, owner, attribute and time of a stored layer against its record. Nothing is trusted
// for being as old as it was.
import { existsSync, readdirSync } from 'node:fs'
import { compareTree } from '../../lib/bundle/compare-tree.ts'
import type { TreeRecord } from '../../lib/bundle/record.ts'
import type { Lock } from '../../lib/fs/lock.ts'
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
    if (!verdict) continue
    const isRepaired = verdict.state === 'damaged' && options.repair === true
    yield isRepaired ? await repair(store, name, verdict, options.signal) : verdict
  }
}

const kinds = { M: 'changed', A: 'added', D: 'missing' } as const

async function verifyLayer(
  store: Store,
  name: string,
  signal: AbortSignal | undefined,
): Promise<Verdict | undefined> {
  using lock = store.tryLock(name, { shared: true })
  return await inspect(store, name, lock, signal)
}

/** Undefined for what was removed since its name was read. */
async function inspect(
  store: Store,
  name: string,
  lock: Lock | undefined,
  signal: AbortSignal | undefined,
): Promise<Verdict | undefined> {
  const found = readCompletion(store.completion(name))
  const verdict = (state: Verdict['state'], ...problems: Problem[]): Verdict => ({
    name,
    diffID: found?.diffID,
    state,
    problems,
    repaired: false,
  })
  if (!lock) return verdict('busy')
  if (!store.has(name) && !existsSync(store.layer(name))) return undefined
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

/** Removes what is still damaged: between the verdict and the lock somebody else may have repaired it, and stored it anew. */
async function repair(
  store: Store,
  name: string,
  seen: Verdict,
  signal: AbortSignal | undefined,
): Promise<Verdict> {
  using lock = store.tryLock(name, { shared: false })
  if (!lock) return seen
  const verdict = await inspect(store, name, lock, signal)
  if (verdict && verdict.state !== 'damaged') return verdict
  await store.retire(name)
  return { ...seen, repaired: true }
}
