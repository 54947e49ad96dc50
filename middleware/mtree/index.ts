// mtree(): the fallback that works on any file system. It records the state of the rootfs when a bundle is made, and
// compares with it at repack. Files are hashed while they are extracted, so nothing is read twice.
import { assertMounted } from '../../lib/bundle/mounted.ts'
import { applyChanges } from '../../lib/bundle/apply-changes.ts'
import { findRecord } from '../../lib/bundle/find-record.ts'
import { compareTree, machineXattrs } from '../../lib/bundle/compare-tree.ts'
import {
  discardRecord,
  loadRecord,
  saveIndex,
  saveRecord,
} from '../../lib/bundle/record-files.ts'
import { recordTree } from '../../lib/bundle/record-tree.ts'
import type { Driver } from '../../lib/driver.ts'
import { withTree } from '../../lib/fs/open-tree.ts'
import { FileHashes, keptHashes } from '../../lib/layer/file-hashes.ts'

/**
 * Records bundles as umoci does (`<manifest digest>.mtree`, with an index beside it), and lists changes by comparing.
 * A bundle without a record is left to the next lister.
 */
export function mtree(): Driver {
  return {
    name: 'mtree',
    recipe: {},
    explain: () => 'records the rootfs, and compares it with the record to list changes',

    async unpack(ctx, next) {
      const hashes = ctx.extraction.hashFiles(new FileHashes(keptHashes))
      await next()
      // umoci must stop rather than err: a stacked rootfs is empty whenever it isn't mounted, and where layers are left
      // out there is no image that a new one could be based on
      if (ctx.extraction.layering === 'stacked' || ctx.image.selected) return
      const { signal, rootfs: subject } = ctx
      const record = await withTree(subject, root =>
        recordTree(root, { hashes, subject, signal }),
      )
      await saveRecord(ctx.bundle, ctx.image.descriptor.digest, record)
    },

    async delta(ctx, next) {
      const manifest = ctx.image.descriptor.digest
      const isStacked = ctx.extraction.layering === 'stacked'
      if (isStacked && !ctx.layers.some(({ placed }) => placed?.loadRecord)) return next()
      assertMounted(ctx)
      const record = await findRecord(ctx)
      if (!record) return next()
      const { verifyContent, signal, rootfs: subject } = ctx
      const options = { verifyContent, ignoreXattrs: machineXattrs, subject, signal }
      const changes = await withTree(subject, root => compareTree(root, record, options))
      ctx.changes = changes
      if (!record.isRenewed || isStacked || ctx.dryRun) return
      // it only spares the next comparison work: a bundle that can't be written can still be packed
      await saveIndex(ctx.bundle, manifest, record).catch((error: Error) => {
        ctx.warn({ code: 'INDEX_NOT_SAVED', message: error.message })
      })
    },

    async refresh(ctx, next) {
      await next()
      const from = ctx.image.descriptor.digest
      const to = ctx.committed.descriptor.digest
      const record = await loadRecord(ctx.bundle, from)
      if (!record) return
      const { packed, packedHashes, packedRecord, signal, rootfs: subject } = ctx
      const options = { packed: packedHashes, packedRecord, subject, signal }
      const renewed = await withTree(subject, root =>
        applyChanges(root, record, packed, options),
      )
      await saveRecord(ctx.bundle, to, renewed)
      if (from !== to) discardRecord(ctx.bundle, from)
    },
  }
}
