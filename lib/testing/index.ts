// The kit for those who write drivers: test images in code, trees as text, and the suite that every driver has to pass.
export { describeTree, type DescribeOptions } from './describe-tree.ts'
export {
  dir,
  file,
  hardlink,
  image,
  ImageBuilder,
  opaque,
  symlink,
  whiteout,
  type EntryOptions,
} from './image.ts'
export { testDriver, type Capabilities, type DriverTest, type Tester } from './test-driver.ts'
