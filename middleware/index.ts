// What `koci` is to those who import it: the framework, and every driver that comes with it.
export * from '../lib/index.ts'
export { cache, type CacheOptions } from './cache/index.ts'
export { hooks, type HooksOptions } from './hooks/index.ts'
export { defaultLimits, limits } from './limits/index.ts'
export { log, type LogOptions } from './log/index.ts'
export { overlay } from './overlay/index.ts'
export { mtree } from './mtree/index.ts'
export { progress, type ProgressOptions } from './progress/index.ts'
