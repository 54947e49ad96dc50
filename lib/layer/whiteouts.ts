// What whiteouts do, seen from the applier: in the plain dialect they are carried out on what lower layers left in the
// tree, in an overlay dialect they are stored for overlayfs to carry out.

import { errno, isMissing, SystemCallError } from '../fs/libc.ts'

/** Carries whiteouts out, or stores them. Everything here throws SystemCallErrors, or KociErrors where it says so. */
export interface Whiteouts {
  /** Hides what lower layers have under a name in a directory; what this layer has there stays, whichever came first. */
  hideName(parent: Buffer, rawName: Buffer): void
  /** Hides what lower layers have in a directory; what this layer has in it stays, whichever came first. */
  hideContent(path: Buffer): void
  /** To be called once, after the last entry and before directories get their metadata. */
  finish(): void
}

/** Whether an error says that a whiteout's path leads to no directory: then there is nothing to hide. */
export function leadsNowhere(error: unknown): boolean {
  return isMissing(error) || (error instanceof SystemCallError && error.errno === -errno.ELOOP)
}
