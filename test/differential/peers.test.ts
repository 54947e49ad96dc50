// Generated images, unpacked by koci and by others: umoci for whole images, GNU tar and bsdtar for single layers in
// which a tar's rules and an image's are the same. What is decided differently is listed here, each with its reason.
import assert from 'node:assert/strict'
import { chmodSync, mkdirSync, rmSync, utimesSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import * as fc from 'fast-check'
import t from 'tap'
import { bound, differential } from '../support/differential.ts'
import { makeSandbox } from '../support/extract.ts'
import {
  anyImage,
  toMembers,
  type Entry,
  type GeneratedImage,
  type ImageOptions,
} from '../support/image-arbitrary.ts'
import { applyAll } from '../support/oracle.ts'
import { memoryParent } from '../support/memory-dir.ts'
import { isRoot, missing, run, temporary } from '../support/peers.ts'
import { tarBytes } from '../support/tar-builder.ts'
import { describeTree } from '../support/tree.ts'
import { umociUnpack, withoutUmoci } from '../support/umoci.ts'

const needsRoot = !isRoot && 'needs root: owners and devices'

t.setTimeout(bound(900) * 1000)

interface Peer {
  readonly name: string
  readonly runs: number
  readonly skip: string | false
  readonly images: ImageOptions
  /** Whether directories have the same times, too. */
  readonly directoryTimes: boolean
  /** What it refuses, in its words, and we don't. */
  readonly refusals: ReadonlyArray<{ readonly why: string; readonly says: RegExp }>
  readonly unpack: (directory: string, image: GeneratedImage) => string
}

/** Go doesn't tell umoci of attributes without a value. */
function forUmoci(entry: Entry): Entry {
  return { ...entry, xattrs: entry.xattrs.filter(([, value]) => value.length > 0) }
}

/** bsdtar counts a fraction before 1970 the wrong way round. */
function since1970(entry: Entry): Entry | undefined {
  const plain = plainName(entry)
  // and takes a backslash at the beginning of a name for a slash
  if (plain?.path.includes('\\') === true) return undefined
  return plain && { ...plain, mtime: plain.mtime < 0n ? 0n : plain.mtime }
}

/** Tar programs refuse `..`, bsdtar in the targets of hard links, too, and a slash at their end; they leave the directory in which they are told to work to the user. */
function plainName(entry: Entry): Entry | undefined {
  const text = entry.path.toString('latin1')
  const link = entry.type === 'hardlink' ? entry.linkname.toString('latin1') : ''
  return text.includes('..') ||
    link.includes('..') ||
    link.endsWith('/') ||
    /^[./]*$/.test(text)
    ? undefined
    : entry
}

const peers: Peer[] = [
  {
    name: 'umoci',
    runs: 30,
    skip: withoutUmoci || needsRoot,
    images: { privileged: true, change: forUmoci, fileParents: false },
    // umoci gives directories that no entry lists, and those in which it deletes something, the time of day
    directoryTimes: false,
    refusals: [
      {
        why: 'whiteouts behind links that lead in a circle, where there is nothing to hide',
        says: /\.wh\..*too many levels of symbolic links/,
      },
    ],
    unpack: (directory, image) => umociUnpack(directory, toMembers(image)),
  },
  ...['tar', 'bsdtar'].map((program): Peer => ({
    name: program === 'tar' ? 'GNU tar' : program,
    runs: 40,
    skip: missing(program) || needsRoot,
    images: {
      privileged: true,
      change: program === 'tar' ? plainName : since1970,
      maxLayers: 1,
      maxEntries: 120,
      // tars know no whiteouts, and each program has its own rules for names that come twice or whose parents are odd
      whiteouts: false,
      duplicates: false,
      oddParents: false,
    },
    // GNU tar makes symlinks that could lead out last of all, after it has set the times
    directoryTimes: program === 'bsdtar',
    refusals: [],
    unpack: (directory, image) => {
      const rootfs = path.join(directory, 'rootfs')
      mkdirSync(rootfs, { recursive: true })
      const tar = path.join(directory, 'layer.tar')
      writeFileSync(tar, tarBytes(toMembers(image)[0] ?? []))
      const flags =
        program === 'tar'
          ? ['--xattrs', '--xattrs-include=*', '--same-owner', '--delay-directory-restore']
          : ['--xattrs', '--same-owner']
      run(program, ['-C', rootfs, ...flags, '--numeric-owner', '-xpf', tar])
      return rootfs
    },
  })),
]

for (const { name, runs, skip, images, directoryTimes, refusals, unpack } of peers)
  await t.test(`the same trees as ${name}`, { skip }, async t => {
    const base = temporary(t, 'peers', memoryParent())
    let index = 0
    let names = 0
    await differential(
      fc.asyncProperty(anyImage(images), async image => {
        const directory = path.join(base, String(index++))
        mkdirSync(directory)
        try {
          const sandbox = makeSandbox(directory)
          chmodSync(sandbox.rootfs, 0o755)
          utimesSync(sandbox.rootfs, 0, 0)
          sandbox.apply(toMembers(image))
          const theirs = tried(() => unpack(path.join(directory, 'theirs'), image), refusals)
          if (theirs === undefined) return
          // whose metadata an image doesn't say, at least not to everybody
          const implied = new Set(applyAll(image.layers).implied())
          const describe = (rootfs: string): string[] =>
            describeTree(rootfs, { directoryTimes, root: false }).map(line => {
              const path = line.slice(0, line.indexOf(' dir '))
              return implied.has(path) ? path : line
            })
          const ours = describe(sandbox.rootfs)
          names += ours.length
          assert.deepEqual(ours, describe(theirs))
        } finally {
          rmSync(directory, { recursive: true, force: true })
        }
      }),
      runs,
      20_261_124,
    )
    t.ok(names > runs, `${names} names compared`)
  })

/** Undefined if a program refuses what it is known to refuse. */
function tried(unpack: () => string, refusals: Peer['refusals']): string | undefined {
  try {
    return unpack()
  } catch (error) {
    const { message } = error as Error
    if (refusals.some(({ says }) => says.test(message))) return undefined
    throw error
  }
}
