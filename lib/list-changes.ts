// What changed in a bundle, from whoever in the chain can list it to the list that is packed: it is drained and sorted, on
// disk if it is long; one that may hold too much is compared with the record; masks are applied.
import { findRecord } from './bundle/find-record.ts'
import { assertMounted } from './bundle/mounted.ts'
import { dropMasked, masksOf, type MaskOptions } from './bundle/mask.ts'
import { takeAsListed, verifyListed } from './bundle/verify-listed.ts'
import { ChangeList } from './change-list.ts'
import { compose, type Member } from './compose.ts'
import type { Context, DeltaContext } from './context.ts'
import { membersOf } from './driver.ts'
import { createError, isError } from './errors.ts'
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
): Promise<ChangeList> {
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
  const { signal, rootfs: subject } = context
  const listed = await ChangeList.from(own.changes, { signal, subject })
  const changes = own.quality === 'superset' ? await verify(own, listed) : listed
  const kept = dropMasked(changes, masksOf(context.imageConfig, context.options))
  // not what a lister may still look at
  for (const each of [listed, changes])
    if (each !== kept && each !== own.changes) each[Symbol.dispose]()
  return kept
}

function noLister({ app }: Run, { bundle }: Context, cause?: () => unknown): () => never {
  return () => {
    const details = { subject: bundle.path, chain: app.describeChain() }
    const reason = 'it has only some layers of its image, and nobody recorded how it was'
    if (bundle.ready?.layers)
      throw createError('INVALID_BUNDLE', { subject: bundle.path, reason }, cause?.())
    throw createError('NO_DELTA_LISTER', details, cause?.())
  }
}

async function verify(context: DeltaContext, listed: ChangeList): Promise<ChangeList> {
  assertMounted(context)
  const { rootfs: subject, verifyContent, signal } = context
  const record = await findRecord(context)
  if (record)
    return withTree(subject, root =>
      verifyListed(root, record, listed, { verifyContent, subject, signal }),
    )
  const message = 'there is no record to compare the list of changes with; it is taken as it is'
  context.warn({ code: 'DELTA_UNVERIFIED', message })
  return withTree(subject, root =>
    ChangeList.from(takeAsListed(root, listed), { signal, subject }),
  )
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
          if (!isDecorator && own.changes) {
            const { signal, rootfs: subject } = own
            own.changes = await ChangeList.from(own.changes, { signal, subject })
          }
          return
        } catch (error) {
          const isFinal = run.signal.aborted || isError(error, 'ROOTFS_UNREADABLE')
          if (isDecorator || isFinal) throw error
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
  await compose(members, { step: 'delta', abort: run.abort })(context, async () => {
    // its remedy is the better one
    if (isError(failure, 'ROOTFS_NOT_MOUNTED')) throw failure
    end()
  })
}
