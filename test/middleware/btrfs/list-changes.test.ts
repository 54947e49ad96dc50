// What the kernel's send stream tells, replayed and confirmed, is what comparing with the record tells: on generated sequences
// of deeds, and on those that a naive reading of the stream gets wrong.
import * as fs from 'node:fs'
import path from 'node:path'
import assert from 'node:assert/strict'
import * as fc from 'fast-check'
import t from 'tap'
import { compareTree, machineXattrs } from '../../../lib/bundle/compare-tree.ts'
import { recordTree } from '../../../lib/bundle/record-tree.ts'
import type { Change } from '../../../lib/change.ts'
import { createSnapshot, createSubvolume, destroySubvolume } from '../../../lib/fs/btrfs.ts'
import { listSnapshotChanges } from '../../../middleware/btrfs/list-changes.ts'
import { mountpoint, onFileSystem } from '../../support/btrfs.ts'
import { anyDeed, doAll } from '../../support/deeds.ts'
import { inTree } from '../../support/rootfs.ts'
import '../../support/seed.ts'

t.setTimeout(900_000)

const batch = 40
const rounds = 25

function lines(changes: Iterable<Change>): string[] {
  return Array.from(changes, ({ kind, path, aliasOf = [] }) =>
    [kind, path, ...aliasOf.map(String).sort()].join(' '),
  )
}

/** Both lists of what `change` changes of what `prepare` makes. */
async function listBoth(
  base: string,
  prepare: (live: string) => void,
  make: (live: string) => void,
): Promise<{ sent: string[]; compared: string[] }> {
  const [live, older, newer] = ['live', 'older', 'newer'].map(name => path.join(base, name))
  if (!live || !older || !newer) return { sent: [], compared: [] }
  try {
    createSubvolume(live)
    prepare(live)
    const record = await inTree(live, root => recordTree(root))
    createSnapshot(live, older, { readOnly: true })
    make(live)
    createSnapshot(live, newer, { readOnly: true })
    const { signal } = new AbortController()
    const answer = await listSnapshotChanges({ older, newer }, base, signal)
    const changes = await inTree(live, root =>
      compareTree(root, record, { ignoreXattrs: machineXattrs }),
    )
    return {
      sent: 'changes' in answer ? lines(answer.changes) : [answer.obstacle],
      compared: lines(changes),
    }
  } finally {
    for (const each of [live, older, newer]) destroySubvolume(each)
  }
}

const write = (live: string, name: string, body = name): void =>
  fs.writeFileSync(path.join(live, name), body)
const directory = (live: string, name: string): string =>
  fs.mkdirSync(path.join(live, name), { recursive: true }) ?? ''
const rename = (live: string, from: string, to: string): void =>
  fs.renameSync(path.join(live, from), path.join(live, to))

const cases: [
  what: string,
  prepare: (live: string) => void,
  make: (live: string) => void,
  expected: string[],
][] = [
  ['nothing', live => write(live, 'a'), () => {}, []],
  [
    'a directory is moved: one command, and all that is in it counts',
    live => {
      directory(live, 'd/e')
      write(live, 'd/e/x')
    },
    live => rename(live, 'd', 'n'),
    ['M ', 'D d', 'A n', 'A n/e', 'A n/e/x'],
  ],
  [
    'a directory takes the place of another that is moved away',
    live => {
      directory(live, 'd')
      write(live, 'd/x')
      write(live, 'd/y')
      directory(live, 'e')
      write(live, 'e/x', 'other')
    },
    live => {
      rename(live, 'd', 'f')
      rename(live, 'e', 'd')
    },
    ['M ', 'M d/x', 'D d/y', 'D e', 'A f', 'A f/x', 'A f/y'],
  ],
  [
    'a file becomes a directory, and a directory a file',
    live => {
      write(live, 'f')
      directory(live, 'd')
      write(live, 'd/x')
    },
    live => {
      fs.rmSync(path.join(live, 'f'))
      directory(live, 'f')
      write(live, 'f/x')
      fs.rmSync(path.join(live, 'd'), { recursive: true })
      write(live, 'd')
    },
    ['M ', 'M d', 'M f', 'A f/x'],
  ],
  [
    'a file with several names gets another one',
    live => {
      write(live, 'a')
      fs.linkSync(path.join(live, 'a'), path.join(live, 'b'))
    },
    live => fs.linkSync(path.join(live, 'b'), path.join(live, 'c')),
    ['M ', 'M a', 'M b', 'A c'],
  ],
  [
    'one of two names goes with the directory that it is in',
    live => {
      directory(live, 'd/e')
      write(live, 'a')
      fs.linkSync(path.join(live, 'a'), path.join(live, 'd/e/b'))
    },
    live => fs.rmSync(path.join(live, 'd'), { recursive: true }),
    ['M ', 'M a', 'D d'],
  ],
  [
    'contents change, and nothing that stat tells',
    live => write(live, 'a', 'one'),
    live => {
      const { atime, mtime } = fs.statSync(path.join(live, 'a'))
      fs.writeFileSync(path.join(live, 'a'), 'two', { flag: 'r+' })
      fs.utimesSync(path.join(live, 'a'), atime, mtime)
      fs.utimesSync(path.join(live, 'a'), atime, mtime)
    },
    ['M a'],
  ],
  [
    'everything is read, and one file is touched',
    live => {
      directory(live, 'd/e')
      for (const name of ['a', 'd/x', 'd/e/y']) write(live, name)
    },
    live => {
      // times of access, without waiting for the kernel to set them
      const later = Date.now() / 1000 + 1000
      for (const name of ['', 'a', 'd', 'd/e', 'd/x', 'd/e/y']) {
        const { mtimeMs } = fs.statSync(path.join(live, name))
        if (mtimeMs === 1000) fs.utimesSync(path.join(live, name), later, 1)
      }
      fs.utimesSync(path.join(live, 'd/x'), later, 2)
    },
    ['M d/x'],
  ],
  [
    'made and removed again',
    live => write(live, 'a'),
    live => {
      const { atime, mtime } = fs.statSync(live)
      write(live, 'b')
      fs.rmSync(path.join(live, 'b'))
      fs.lutimesSync(live, atime, mtime)
    },
    [],
  ],
]

/** Something to be moved and linked, in the names that deeds are done to. */
function furnish(home: string): void {
  for (const name of ['a/a', 'a/b', 'b/a'])
    fs.mkdirSync(path.join(home, name), { recursive: true })
  for (const name of ['a/a/a', 'a/a/b', 'a/b/a', 'b/b', 'b/a/b']) write(home, name)
  fs.linkSync(path.join(home, 'b/b'), path.join(home, 'b/a/a'))
}

async function onBtrfs(base: string): Promise<void> {
  for (const [what, prepare, make, expected] of cases)
    await t.test(what, async t => {
      const { sent, compared } = await listBoth(
        base,
        live => {
          prepare(live)
          // so that it can be set back to what it was: Node's times are less exact than the kernel's
          fs.utimesSync(live, 1, 1)
          for (const name of fs.readdirSync(live)) fs.lutimesSync(path.join(live, name), 1, 1)
        },
        make,
      )
      t.strictSame(sent, compared)
      t.strictSame(
        sent.map(line => line.split(' ', 2).join(' ')),
        expected,
      )
    })

  await t.test('more names than the kernel tells of', async t => {
    const { sent } = await listBoth(
      base,
      live => {
        write(live, 'a')
        for (let at = 0; at < 60; at += 1)
          fs.linkSync(path.join(live, 'a'), path.join(live, `${at}`.padStart(100, '0')))
      },
      live => write(live, 'a', 'changed'),
    )
    t.strictSame(sent, ['a file has more names than the kernel tells of'])
  })

  await t.test(`${batch * rounds} sequences of deeds`, async t => {
    const sequence = fc.tuple(
      fc.array(anyDeed, { minLength: 10, maxLength: 40, size: 'max' }),
      fc.array(anyDeed, { maxLength: 20, size: 'max' }),
    )
    let changes = 0
    const start = performance.now()
    await fc.assert(
      fc.asyncProperty(
        fc.array(sequence, { minLength: batch, maxLength: batch, size: 'max' }),
        async sequences => {
          const each = (live: string, which: 0 | 1): void => {
            for (const [index, deeds] of sequences.entries()) {
              const home = path.join(live, `${index % batch}`)
              if (which === 0) furnish(home)
              doAll(home, deeds[which])
            }
          }
          const { sent, compared } = await listBoth(
            base,
            live => each(live, 0),
            live => each(live, 1),
          )
          changes += sent.length
          assert.deepEqual(sent, compared)
        },
      ),
      { numRuns: rounds, endOnFailure: true },
    )
    const seconds = ((performance.now() - start) / 1000).toFixed(1)
    t.comment(`${changes} changes in ${seconds} s`)
    t.ok(changes > 3 * batch * rounds, `${changes} changes`)
  })
}

if (mountpoint !== undefined) await onBtrfs(mountpoint)
else await onFileSystem(t, import.meta.filename)
