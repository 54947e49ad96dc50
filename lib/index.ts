// The public surface of koci: the framework, the types that middleware needs, and the drivers that come with it.
export { Koci, type KociOptions } from './application.ts'
export { change, type Change } from './change.ts'
export type { ChangeList, ListedChanges } from './change-list.ts'
export { when } from './combine.ts'
export { compose, type Composed, type Member, type Middleware, type Next } from './compose.ts'
export type {
  ConfigContext,
  Context,
  DeltaContext,
  LayerContext,
  PackContext,
  RefreshContext,
  RepackContext,
  UnpackContext,
} from './context.ts'
export { steps, type Driver, type Step, type Steps } from './driver.ts'
export { diffImages, type Aspect, type Difference, type DiffOptions } from './diff.ts'
export type { DriverOption, OptionValue, Recipe } from './driver-options.ts'
export * from './errors.ts'
export { explainBundle, explainUnpack, type Explanation, type LayerPlan } from './explain.ts'
export type { KociEvents, Warning } from './events.ts'
export { flattenImage, type FlattenOptions } from './flatten.ts'
export { filter, map } from './iterate.ts'
export type { Image } from './layout/open-image.ts'
export type { Dialect, Extraction, Layering, Mapping } from './layer/extraction.ts'
export type {
  Layer,
  LayerProgress,
  LayerReport,
  LayerWarning,
  Placement,
  ReplacedSource,
  StackingReport,
} from './layer/layer.ts'
export type { LayerEntry } from './layer/layer-writer.ts'
export type { Limits } from './layer/limits.ts'
export {
  copyImages,
  type CopiedBlob,
  type CopyOptions,
  type CopyProgress,
  type CopyReport,
} from './layout/copy-images.ts'
export { createImage } from './layout/create-image.ts'
export { ImageLayout } from './layout/image-layout.ts'
export type { RepackOptions, RepackResult } from './repack.ts'
export type { UnpackOptions, UnpackResult } from './unpack.ts'
export { listDelta, mountBundle, unmountBundle, type BundleOptions } from './with-bundle.ts'
