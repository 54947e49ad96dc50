// What became of the metadata of a hostile image's files: lines of `describeTree` without what nobody can foretell.
import type { Test } from 'tap'
import type { Found } from './hostile.ts'
import { describeTree, type DescribeOptions } from './tree.ts'

const us = ` ${process.geteuid?.()}:${process.getegid?.()}`

/**
 * Has a hostile case compare the metadata of its rootfs: a line per name as `describeTree` makes them, without sizes and
 * hashes; whoever runs the tests is `0:0`. Needs modes that let the user in.
 */
export function described(
  lines: readonly string[],
  options: DescribeOptions = {},
): (t: Test, found: Found) => void {
  return (t, { place }) => {
    t.strictSame(linesOf(place.rootfs, options), lines, 'metadata')
  }
}

/** The lines themselves. */
export function linesOf(rootfs: string, options: DescribeOptions = {}): string[] {
  return describeTree(rootfs, { root: false, ...options }).map(line =>
    line.replace(us, ' 0:0').replace(/ \d+ [0-9a-f]{16}/, ''),
  )
}
