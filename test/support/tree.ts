// What a tree looks like; it is a part of the kit for drivers, and used by most tests of koci's own.
export { describeTree, type DescribeOptions } from '../../lib/testing/describe-tree.ts'
