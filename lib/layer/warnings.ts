// Problems that don't stop an extraction. Kept by kind, with the first case and a count, because a hostile layer
// could make one for every entry.
import { printable } from '../text.ts'

/** What was not done as the layer says, and was not worth an error. */
export type ApplyWarningCode =
  | 'DEVICE_AS_FILE'
  | 'IGNORED_WHITEOUT'
  | 'IGNORED_XATTR'
  | 'WHITEOUT_DIRECTORY'
  | 'XATTR_REFUSED'
  | 'XATTRS_UNSUPPORTED'
  | 'TIME_CLAMPED'

/** Something that was left out or changed, and how often. */
export interface ApplyWarning {
  /** One of the codes here, or of the tar reader's. */
  readonly code: string
  /** The first case, with its path, fit to be printed. */
  readonly message: string
  count: number
}

/** What might come out as the layer says with more privilege, or on another file system. */
const degradations: ReadonlySet<string> = new Set<ApplyWarningCode>([
  'DEVICE_AS_FILE',
  'TIME_CLAMPED',
  'XATTR_REFUSED',
  'XATTRS_UNSUPPORTED',
])

/** Collects warnings, one per code. */
export class Warnings {
  readonly #byCode = new Map<string, ApplyWarning>()

  /** `subject`: the entry it is about, if there is one. */
  add(code: string, message: string, subject?: Uint8Array): void {
    const known = this.#byCode.get(code)
    if (known !== undefined) {
      known.count += 1
      return
    }
    const text = subject === undefined ? message : `${printable(subject)}: ${message}`
    this.#byCode.set(code, { code, message: text, count: 1 })
  }

  list(): ApplyWarning[] {
    return [...this.#byCode.values()]
  }

  /** Of the list, what might come out as the layer says with more privilege, or on another file system. */
  degraded(): ApplyWarning[] {
    return this.list().filter(({ code }) => degradations.has(code))
  }
}
