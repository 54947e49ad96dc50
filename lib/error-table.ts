// Every error koci can raise, in one place: its class, its message, what to do about it.
// `test/lib/errors.test.ts` holds that each code is thrown by some test and that
// docs/errors.md, which is made from this table, is up to date.

/** What the caller would do about an error; each has a class of the same name in `errors.ts`. */
export type ErrorClass =
  | 'UsageError'
  | 'FormatError'
  | 'IntegrityError'
  | 'BreakoutError'
  | 'LimitError'
  | 'NotFoundError'
  | 'ConflictError'
  | 'UnsupportedError'
  | 'SystemError'

/**
 * `NAME: [class, message, documentation]`. The code is `ERR_KOCI_` + NAME. `{field}` in a
 * message is a detail that whoever raises the error has to give; a message starts with its
 * subject, is lower case, and ends in a remedy where there is one.
 */
export const errorTable = {
  // --- how the framework is used
  INVALID_MIDDLEWARE: [
    'UsageError',
    '{subject}: not a middleware: {reason} - pass a function (ctx, next) or a named driver object',
    'Something given to `use()` or `compose()` is neither a function nor a driver.',
  ],
  INVALID_OPTION: [
    'UsageError',
    '{subject}: {reason}',
    'An option or argument has a value that makes no sense.',
  ],
  NEXT_CALLED_TWICE: [
    'UsageError',
    '{subject}: called next() twice in step {step} - call it once, or not at all to answer yourself',
    'A middleware ran the rest of the chain twice.',
  ],
  NEXT_NOT_AWAITED: [
    'UsageError',
    '{subject}: finished step {step} before the middleware after it - return or await next()',
    'A middleware resolved while what it started was still running.',
  ],
  FROZEN: [
    'UsageError',
    '{subject}: use() after the first run - compose the whole chain first, or make a new Koci',
    'A chain is fixed once it has run.',
  ],
  TOO_LATE: [
    'UsageError',
    '{subject}: too late - decide in the unpack step, before next()',
    'How layers are extracted was to be changed after they had been looked up.',
  ],
  LAYER_SHARED: [
    'UsageError',
    '{subject}: {by} keeps the layer, so its directory must not be changed: {reason} - put the middleware that changes it further in, or have it declare a variant',
    'A middleware wanted to change a layer after a store had published it for others.',
  ],
  CONSUMED: [
    'UsageError',
    '{subject}: already consumed - it can be read once',
    'A stream that can be read only once was read again.',
  ],
  LAYER_NOT_PLACED: [
    'UsageError',
    '{subject}: step layer ended and nobody placed the layer; the chain is {chain} - call next() or ctx.layer.place()',
    'A middleware of `layer` or `locate` kept the layer from being extracted and did not say where it is.',
  ],
  LAYERING_CONFLICT: [
    'UsageError',
    '{subject}: wants {wanted}, but {other} already chose {chosen} - use one of the two drivers',
    'Two drivers want the rootfs made, or whiteouts stored, in different ways.',
  ],
  NOT_MOUNTED: [
    'UsageError',
    '{subject}: the layers are stacked and no middleware mounted them; the chain is {chain}',
    'Stacked layers need a driver with a `mount` step.',
  ],
  ROOTFS_NOT_MOUNTED: [
    'ConflictError',
    '{subject}: the rootfs is not mounted, so that everything would seem to be deleted - run koci mount first',
    'What changed in a bundle of stacked layers can be seen only while it is mounted.',
  ],
  NEEDS_BELOW: [
    'UsageError',
    '{subject}: the layer cannot be extracted alone: {reason} - extract it on top of the layers below it',
    'A stacked layer refers to lower layers. koci catches this and extracts the layer once more, in order; a middleware of `layer` sees both attempts.',
  ],
  NOT_UNPACKED: [
    'UsageError',
    '{subject}: a middleware of step unpack did not call next(); the chain is {chain}',
    'The chain ended before anything was unpacked.',
  ],
  NOT_REPACKED: [
    'UsageError',
    '{subject}: a middleware of step repack did not call next(); the chain is {chain}',
    'The chain ended before anything was repacked.',
  ],
  STRICT: [
    'UsageError',
    '{subject}: {reason} - it would be a warning without strict',
    'Something that is normally a warning happened in strict mode.',
  ],
  NO_DELTA_LISTER: [
    'UsageError',
    '{subject}: nobody in the chain can list changes; the chain is {chain} - add mtree()',
    'No middleware of the `delta` step answered.',
  ],
  DRIVER_NOT_FOUND: [
    'NotFoundError',
    '{subject}: driver {driver} not found - {remedy}',
    'A driver that was asked for, or that a bundle remembers, is neither one of koci nor installed beside it.',
  ],
  UNTRUSTED: [
    'UsageError',
    '{subject}: not trusted: {reason} - only root and you may be able to change it and what leads to it',
    'A file that decides what code runs, a directory above it, or a command that it names could have been changed by somebody else.',
  ],
  DRIVER_REQUIRED: [
    'UsageError',
    '{subject}: needs {wanted}, which is not in the chain {chain} - add it',
    'A driver needs another one that this chain does not have.',
  ],
  MIDDLEWARE_FAILED: [
    'UsageError',
    '{subject}: failed in {step}: {reason}',
    'A middleware threw something that is no error of koci or of the system; the cause has it, with its stack.',
  ],
  CHAIN_MISMATCH: [
    'UsageError',
    '{subject}: the bundle was made with {wanted}, which is not in the chain {chain} - use the same drivers',
    'A bundle needs drivers that this chain does not have.',
  ],

  // --- malformed input
  INVALID_LAYOUT: [
    'FormatError',
    '{subject}: not an OCI image layout: {reason}',
    'The layout directory or archive is not a valid OCI image layout.',
  ],
  INVALID_DIGEST: [
    'FormatError',
    '{subject}: not a valid digest: {reason}',
    'A digest does not follow the grammar or its algorithm.',
  ],
  INVALID_DESCRIPTOR: [
    'FormatError',
    '{subject}: invalid descriptor: {reason}',
    'A descriptor lacks a field or has a wrong one.',
  ],
  INVALID_INDEX: [
    'FormatError',
    '{subject}: invalid image index: {reason}',
    'An image index is malformed or ambiguous.',
  ],
  INVALID_MANIFEST: [
    'FormatError',
    '{subject}: invalid manifest: {reason}',
    'An image manifest is malformed or ambiguous.',
  ],
  INVALID_CONFIG: [
    'FormatError',
    '{subject}: invalid image config: {reason}',
    'An image config is malformed or does not fit its manifest.',
  ],
  INVALID_REFERENCE: [
    'FormatError',
    '{subject}: invalid reference: {reason}',
    'An image reference or tag breaks the grammar.',
  ],
  INVALID_JSON: [
    'FormatError',
    '{subject}: invalid JSON: {reason}',
    'A JSON document cannot be parsed or is ambiguous.',
  ],
  INVALID_BUNDLE: [
    'FormatError',
    '{subject}: not a usable bundle: {reason}',
    'The bundle directory or its metadata is missing or malformed.',
  ],
  INVALID_STORE: [
    'FormatError',
    '{subject}: not a usable store of layers: {reason}',
    'The directory of a store of layers, or something in it, is not what it has to be.',
  ],
  INVALID_MTREE: [
    'FormatError',
    '{subject}: invalid mtree manifest at line {line}: {reason}',
    'An mtree manifest cannot be parsed.',
  ],
  INVALID_HOOKS: [
    'FormatError',
    '{subject}: line {line}: {key}: {reason}',
    'A hooks file is not TOML, or says something that koci does not know.',
  ],
  INVALID_CONFIG_FILE: [
    'UsageError',
    '{subject}: {reason}',
    'A `koci.config.ts` or `.js` could not be loaded, threw, or does not export a function that composes a chain. `--no-config` goes on without the one that is found by itself.',
  ],
  INVALID_REPLY: [
    'FormatError',
    '{subject}: reply to {hook}: {reason}',
    'A hook answered something that is not in its protocol.',
  ],
  INVALID_ENTRY: [
    'FormatError',
    '{subject}: invalid layer entry: {reason}',
    'An entry of a layer cannot be applied or written.',
  ],
  INVALID_WHITEOUT: [
    'FormatError',
    '{subject}: invalid whiteout: {reason}',
    'A whiteout names nothing, "." or "..".',
  ],
  BAD_ARCHIVE: [
    'FormatError',
    '{subject}: malformed tar archive at byte {offset}: {reason}',
    'A layer is not a well-formed tar archive.',
  ],
  BAD_COMPRESSION: [
    'FormatError',
    '{subject}: malformed {format} data: {reason}',
    'Compressed data is corrupt, truncated or not what its media type says.',
  ],

  // --- the bytes are not the promised ones
  DIGEST_MISMATCH: [
    'IntegrityError',
    '{subject}: digest mismatch: found {found}, expected {expected}',
    'The content of a blob does not have its digest.',
  ],
  SIZE_MISMATCH: [
    'IntegrityError',
    '{subject}: size mismatch: found {found} bytes, expected {expected}',
    'A blob does not have the size its descriptor says.',
  ],
  DIFF_ID_MISMATCH: [
    'IntegrityError',
    '{subject}: diffID mismatch: found {found}, expected {expected}',
    'An uncompressed layer does not have the DiffID of the image config.',
  ],
  FILE_CHANGED: [
    'IntegrityError',
    '{subject}: changed while it was read - stop what writes there and try again',
    'Something in a tree was changed, replaced or removed while it was listed, read or packed.',
  ],
  LAYOUT_DAMAGED: [
    'IntegrityError',
    '{subject}: {count} problems found',
    'A layout was verified and is not what it says; the problems were listed before.',
  ],
  TREE_DIFFERS: [
    'IntegrityError',
    '{subject}: validation failed: {count} differences found',
    'A directory is not what a manifest says; the differences were listed before.',
  ],

  // --- attempts to leave the rootfs
  PATH_ESCAPE: [
    'BreakoutError',
    '{subject}: path leaves the root: {reason}',
    'A path in a layer or an image tries to leave the rootfs.',
  ],

  // --- limits
  LIMIT_EXCEEDED: [
    'LimitError',
    '{subject}: {limit} exceeded: {value}, the limit is {maximum}',
    'A configured or built-in limit was exceeded.',
  ],

  // --- missing
  BLOB_NOT_FOUND: [
    'NotFoundError',
    '{subject}: blob not found in {layout}',
    'A blob that a descriptor names is not in the layout.',
  ],
  REF_NOT_FOUND: [
    'NotFoundError',
    '{subject}: tag not found in {layout} - {choices}',
    'The layout has no such tag; the message lists those it has.',
  ],
  PLATFORM_NOT_FOUND: [
    'NotFoundError',
    '{subject}: no image for platform {platform} - {choices}',
    'An index has no manifest for the platform.',
  ],
  LAYER_NOT_STORED: [
    'NotFoundError',
    '{subject}: no such layer in {store} - give 6 digits or more of one that koci cache ls lists',
    'A store has no layer of this name or DiffID.',
  ],
  USER_NOT_FOUND: [
    'NotFoundError',
    '{subject}: no such {kind} in the rootfs',
    "The image's user or group name is not in the rootfs's /etc/passwd or /etc/group.",
  ],

  // --- in the way
  LOCKED: [
    'ConflictError',
    '{subject}: in use by another koci - wait for it to end',
    'Another process holds the lock.',
  ],
  CLOBBER: [
    'ConflictError',
    '{subject}: already exists - {remedy}',
    'Something that was there before would have to be replaced.',
  ],
  AMBIGUOUS: [
    'ConflictError',
    '{subject}: ambiguous: {choices}',
    'More than one thing fits; the message lists them.',
  ],

  REF_MOVED: [
    'ConflictError',
    '{subject}: leads to another image by now - try again',
    'Somebody else changed an image while it was being changed, so that what was made of the old one is not for the new one.',
  ],

  MOUNT_BUSY: [
    'ConflictError',
    '{subject}: in use by {users} - end what uses it and try again',
    'Something is to be unmounted, or put together anew, while programs or containers still use it.',
  ],

  LAYER_IN_USE: [
    'ConflictError',
    '{subject}: in use by {users} - it can be removed when that is gone',
    'A stored layer was to be removed that a bundle, a mount or a running process needs.',
  ],

  NOT_REFRESHED: [
    'ConflictError',
    '{subject}: the new image {refName} is complete, but the bundle could not be refreshed and stays on its old base: {reason}',
    'A repack with refresh failed after the tag was set. Once the reason is gone, the same repack does it.',
  ],

  // --- can't be done
  UNSUPPORTED_MEDIA_TYPE: [
    'UnsupportedError',
    '{subject}: media type {mediaType} is not supported',
    'A manifest, config or layer has a media type that koci cannot handle.',
  ],
  UNSUPPORTED_ALGORITHM: [
    'UnsupportedError',
    '{subject}: digest algorithm {algorithm} is not supported - sha256 and sha512 are',
    'A digest uses an algorithm that koci cannot verify.',
  ],
  UNSUPPORTED_ENTRY: [
    'UnsupportedError',
    '{subject}: layer entry of type {type} is not supported',
    'A tar entry has a type that no container runtime handles.',
  ],
  UNSUPPORTED_VERSION: [
    'UnsupportedError',
    '{subject}: version {version} is not supported',
    'A file was written by a newer or foreign version of a format.',
  ],
  UNSUPPORTED_PLATFORM: [
    'UnsupportedError',
    '{subject}: {reason}',
    'The machine, the operating system or the image is of a kind koci cannot serve.',
  ],
  ROOTFS_UNREADABLE: [
    'ConflictError',
    '{subject}: the rootfs does not show it as it is: {reason}',
    'What changed can be told neither by the driver that failed nor by one that looks at the rootfs, so that no other is asked instead.',
  ],
  UPPER_UNREADABLE: [
    'UnsupportedError',
    '{subject}: {feature} was on when it was changed; the upper directory does not tell what it is - mount bundles with koci only',
    'An upper directory holds what overlayfs notes with `redirect_dir` or `metacopy`: directories and files without what is in them.',
  ],
  READ_ONLY: [
    'UnsupportedError',
    '{subject}: cannot be written: {reason}',
    'An image archive, or another source that can only be read, was to be changed.',
  ],

  // --- the system said no
  MOUNT_FAILED: [
    'SystemError',
    '{subject}: cannot be mounted: {reason}',
    'The kernel refused an overlay mount, or made another one than was asked for.',
  ],
  HOOK_FAILED: [
    'SystemError',
    '{subject}: {hook} {outcome}: {said}',
    'A command of a hooks file could not be run, failed, was killed, or took too long; the message has the end of what it said.',
  ],
  IO: [
    'SystemError',
    '{subject}: {reason}',
    'A system call failed; the cause has its code, such as ENOSPC or EACCES.',
  ],
  ABORTED: [
    'SystemError',
    '{subject}: aborted',
    'The run was cancelled, by a signal or by the caller.',
  ],
  WORKER_DIED: [
    'SystemError',
    '{subject}: worker ended unexpectedly: {reason}',
    'A worker thread ended without an answer.',
  ],
} as const
