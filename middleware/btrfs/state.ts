// What bundles remember of their snapshots.
import type { Bundle } from '../../lib/bundle/bundle.ts'
import type { LayerReport } from '../../lib/layer/layer.ts'
import { namePattern } from './names.ts'

/** The name under which the driver places layers, and bundles remember their bases. */
export const driverName = 'btrfs'

/** What a bundle remembers; JSON. */
export interface State {
  /** The snapshot with which the rootfs is compared. */
  readonly base: string
  /** Reports of the image's layers, if the base is just what they make; null if it isn't. */
  readonly reports: readonly LayerReport[] | null
}

/** What the driver keeps with a bundle; undefined if that isn't sound. */
export function recallState(bundle: Bundle): State | undefined {
  const state = bundle.recall(driverName) as State | undefined
  const isSound =
    typeof state?.base === 'string' &&
    namePattern.test(state.base) &&
    (state.reports === null || Array.isArray(state.reports))
  return isSound ? state : undefined
}
