// What changed in a bundle, from whoever in the chain can list it to the list that is packed: a list that may hold too much
// is compared with the record, masks are applied, each path is in it once, and it is sorted.
import { findRecord } from './bundle/find-record.ts'
import { assertMounted } from './bundle/mounted.ts'
import { dropMasked, masksOf, type MaskOptions } from './bundle/mask.ts'
import { takeAsListed, verifyListed } from './bundle/verify-listed.ts'
import type { Change } from './change.ts'
import { compose, type Member } from './compose.ts'
import type { Context, DeltaContext } from './context.ts'
import { membersOf } from './driver.ts'
import { createError } from './errors.ts'
import { withTree } from './fs/open-tree.ts'
import type { Run } from './run.ts'

/** How changes are listed. */
export interface ListOptions extends MaskOptions {
  /** Compare the content of every file, whatever size and times say. @default false */
  readonly verifyContent?: boolean | undefined
  /** If a lister fails, have the next one in the chain answer, with a warning. @default false */
  readonly fallback?: boolean | undefined
  /** Keep nothing of what is found out meanwhile. @default false */
  readonly dryRun?: boolean | undefined
}

/**
 * What changed in the bundle, masks applied, sorted bytewise.
 * @throws {UsageError} ERR_KOCI_NO_DELTA_LISTER; {ConflictError} ERR_KOCI_ROOTFS_NOT_MOUNTED; and whatever made a lister
 * fail
 */
export async function listChanges(
  run: Run,
  context: Context & { readonly options: ListOptions },
): Promise<readonly Change[]> {
  const { verifyContent = false, fallback = false, dryRun = false } = context.options
  const own: DeltaContext = context.with({
    changes: undefined,
    quality: 'exact' as const,
    verifyContent,
    dryRun,
  })
  await (fallback
    ? listWithFallback(run, own)
    : run.app.step('delta', run, own, noLister(run, own)))
  if (!own.changes) return noLister(run, own)()
  const listed = await Array.fromAsync(own.changes)
  const changes = own.quality === 'superset' ? await verify(own, listed) : listed
  // of listers that meet on a path the last one counts: a layer has each name once
  const unique = new Map(changes.map(each => [each.rawPath.toString('latin1'), each]))
  const masks = masksOf(context.imageConfig, context.options)
  return dropMasked([...unique.values()], masks).sort((a, b) =>
    Buffer.compare(a.rawPath, b.rawPath),
  )
}

function noLister({ app }: Run, { bundle }: Context, cause?: () => unknown): () => never {
  return () => {
    const details = { subject: bundle.path, chain: app.describeChain() }
    throw createError('NO_DELTA_LISTER', details, cause?.())
  }
}

async function verify(context: DeltaContext, listed: readonly Change[]): Promise<Change[]> {
  assertMounted(context)
  const { rootfs: subject, verifyContent, signal } = context
  const record = await findRecord(context)
  if (record)
    return withTree(subject, root =>
      verifyListed(root, record, listed, { verifyContent, subject, signal }),
    )
  const message = 'there is no record to compare the list of changes with; it is taken as it is'
  context.warn({ code: 'DELTA_UNVERIFIED', message })
  return withTree(subject, root => takeAsListed(root, listed))
}

/** The step, but that a lister which fails, before or while its list is read, is as if it weren't there. */
async function listWithFallback(run: Run, context: DeltaContext): Promise<void> {
  let failure: unknown
  const members = membersOf(run.app.drivers, 'delta').map(
    ({ name, run: list }): Member<DeltaContext> => ({
      name,
      async run(own, next) {
        let isDecorator = false
        try {
          await list(own, () => {
            isDecorator = true
            return next()
          })
          // it can fail while it is read, too
          if (!isDecorator && own.changes) own.changes = await Array.fromAsync(own.changes)
          return
        } catch (error) {
          if (isDecorator || run.signal.aborted) throw error
          failure = error
          const reason = error instanceof Error ? error.message : String(error)
          const message = `${name} failed to list changes, the next driver is asked: ${reason}`
          context.warn({ code: 'DELTA_FALLBACK', message })
        }
        own.changes = undefined
        own.quality = 'exact'
        await next()
      },
    }),
  )
  const end = noLister(run, context, () => failure)
  await compose(members, { step: 'delta', abort: run.abort })(context, async () => end())
}
