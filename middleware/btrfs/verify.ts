// Verification. That nobody changed a snapshot since it was made the file system tells; and everything is read, which fails
// where a disk has lost something: btrfs has sums of its own of whatever it stores.
import { recordTree } from '../../lib/bundle/record-tree.ts'
import { withTree } from '../../lib/fs/open-tree.ts'
import type { Problem, Verdict, VerifyOptions } from '../../lib/stored-layers.ts'
import type { Chain } from './names.ts'
import type { Store } from './store.ts'

/**
 * Verifies the snapshots of chains, one after the other. Repaired is what isn't in use by a running process.
 * @throws {SystemError} ERR_KOCI_IO, ERR_KOCI_ABORTED
 */
export async function* verify(
  store: Store,
  { names = [...store.chains().keys()], repair = false, signal }: VerifyOptions = {},
): AsyncGenerator<Verdict, void, undefined> {
  for (const name of names) {
    const seen = store.chain(name)
    const verdict = await verifyChain(store, name, signal)
    if (!verdict) continue
    const isRepaired = verdict.state === 'damaged' && repair && remove(store, name, seen)
    yield { ...verdict, repaired: isRepaired }
  }
}

/** Undefined for what was removed since its name was read. */
async function verifyChain(
  store: Store,
  name: string,
  signal: AbortSignal | undefined,
): Promise<Verdict | undefined> {
  const isHeld = store.hold(name)
  try {
    const found = store.chain(name)
    const verdict = (state: Verdict['state'], ...problems: Problem[]): Verdict => ({
      name,
      diffID: found?.diffIDs.at(-1),
      state,
      problems,
      repaired: false,
    })
    if (!isHeld) return verdict('busy')
    if (store.usedMs(name) === undefined) return undefined
    if (!found) return verdict('damaged', { kind: 'no record', path: '' })
    if (!store.has(found)) return verdict('damaged', { kind: 'no tree', path: '' })
    if (!store.isSound(found)) return verdict('damaged', { kind: 'changed', path: '' })
    const subject = store.snapshot(found.snapshot)
    return (await isReadable(subject, signal))
      ? verdict('good')
      : verdict('damaged', { kind: 'unreadable', path: '' })
  } finally {
    store.letGo([name])
  }
}

/** Whether all of it can be read. */
async function isReadable(subject: string, signal: AbortSignal | undefined): Promise<boolean> {
  try {
    await withTree(subject, root => recordTree(root, { subject, signal }))
    return true
  } catch (error) {
    const { cause } = error as { cause?: NodeJS.ErrnoException }
    if (cause?.code !== 'EIO') throw error
    return false
  }
}

/** Between the verdict and the lock somebody else may have made it anew: what isn't the same any more stays. */
function remove(store: Store, name: string, seen: Chain | undefined): boolean {
  using lock = store.tryAlone(name)
  const found = lock && store.chain(name)
  if (found?.uuid !== seen?.uuid) return false
  if (found) store.removeChain(name, found)
  return found !== undefined
}
