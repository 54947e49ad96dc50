// A refresh bases the bundle on the new image: the next upper directory has what the new layers don't show. Until the bundle
// says that it counts, the old one stays as it is, so that whatever fails leaves the bundle on its old base.
import type { RefreshContext } from '../../lib/context.ts'
import type { Home } from './home.ts'
import { rebaseUpper } from './rebase.ts'
import { planStack } from './stack.ts'
import { listUpper } from './upper-changes.ts'

/** Begins a new upper directory for the new layers. The rootfs must not be mounted. */
export async function refreshUpper(
  context: RefreshContext,
  home: Home,
  durable: boolean,
): Promise<void> {
  const { bundle, newLayers, extraction, signal } = context
  const { dialect } = extraction
  const stack = planStack(newLayers, extraction, home)
  const from = home.upper
  const number = home.upperNumber
  using changes = await listUpper({ upper: from, stack, dialect, signal })
  const next = Math.max(...home.upperNumbers(), number) + 1
  context.defer(() => {
    home.upperNumber = number
    home.removeUpper(next)
  })
  home.upperNumber = next
  rebaseUpper(from, home.upper, changes, { dialect, durable })
  bundle.discard(() => {
    for (const each of home.upperNumbers()) if (each < next) home.removeUpper(each)
  })
}
