// The hooks there are. Five have the names of the proposal (umoci#325); the other three are where a script changes the
// runtime configuration, and puts an overlay together and takes it down.

/** The name of a hook, as the file and the commands have it. */
export type HookName =
  | 'unpack.ociv1.layer.try-skip'
  | 'unpack.ociv1.layer.pre-extract'
  | 'unpack.ociv1.layer.post-extract'
  | 'unpack.ociv1.runtime-config'
  | 'unpack.ociv1.rootfs.mount'
  | 'unpack.ociv1.rootfs.unmount'
  | 'repack.ociv1.layer.delta-list'
  | 'repack.ociv1.layer.refresh-bundle'

/** What may be said in the file about a hook beside `command`, `timeout` and `env`; and about its commands' answers. */
export interface HookKind {
  /** Whether a command may leave it to the next one, by its exit status. */
  readonly canDecline: boolean
  /** Fields of a reply, beside `version`. */
  readonly reply: readonly string[]
  /** Keys that only this hook has. */
  readonly keys: readonly string[]
}

/** Every hook, in the order in which runs meet them. */
export const hookKinds: Readonly<Record<HookName, HookKind>> = {
  'unpack.ociv1.layer.try-skip': {
    canDecline: true,
    reply: ['dir', 'rootfs', 'verified', 'report'],
    keys: ['parallel'],
  },
  'unpack.ociv1.layer.pre-extract': {
    canDecline: false,
    reply: ['target', 'dialect'],
    keys: [],
  },
  'unpack.ociv1.layer.post-extract': { canDecline: false, reply: ['dir'], keys: [] },
  'unpack.ociv1.rootfs.mount': { canDecline: false, reply: [], keys: [] },
  'unpack.ociv1.rootfs.unmount': { canDecline: false, reply: [], keys: [] },
  'unpack.ociv1.runtime-config': { canDecline: false, reply: ['runtimeConfig'], keys: [] },
  'repack.ociv1.layer.delta-list': { canDecline: true, reply: [], keys: ['fallback'] },
  'repack.ociv1.layer.refresh-bundle': { canDecline: false, reply: ['dir'], keys: [] },
}

/** All names. */
export const hookNames: readonly HookName[] = Object.keys(hookKinds) as HookName[]

/** The exit status by which a command leaves it to the next one; it is automake's for "skipped". */
export const declined = 77
