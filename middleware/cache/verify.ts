// Verification: every name, byte, mode, owner, attribute and time of a stored layer against its record. Nothing is trusted
// for being as old as it was.
import { compareTree } from '../../lib/bundle/compare-tree.ts'
import { withTree } from '../../lib/fs/open-tree.ts'
import type { Problem, Verdict, VerifyOptions } from '../../lib/stored-layers.ts'
import { isTrusted, readCompletion } from './completion.ts'
import { isDirectory } from './files.ts'
import { isSeenAlike } from './key.ts'
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
  for (const name of options.names ?? store.names()) {
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
  if (!found) return verdict('damaged', { kind: 'no record', path: '' })
  if (!isTrusted(found)) return verdict('outdated')
  const subject = store.tree(name)
  if (!isDirectory(subject)) return verdict('damaged', { kind: 'no tree', path: '' })
  if (!isSeenAlike(found)) return verdict('elsewhere')
  const record = await store.load(name, found)
  if (!record) return verdict('damaged', { kind: 'no record', path: '' })
  // then no stat proves anything
  record.freshTime = -(2n ** 63n)
  const options = { verifyContent: true, subject, signal }
  const changes = await withTree(subject, root => compareTree(root, record, options))
  const problems = changes.map(({ kind, path }): Problem => ({ kind: kinds[kind], path }))
  return verdict(problems.length === 0 ? 'good' : 'damaged', ...problems)
}

async function repair(store: Store, name: string): Promise<boolean> {
  using lock = store.tryLock(name, { shared: false })
  if (!lock) return false
  await store.retire(name)
  return true
}
