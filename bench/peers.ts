// The programs that koci is compared with, and the ones that help: which are here, in which version, and how the same
// image is unpacked by each.
import { spawnSync } from 'node:child_process'
import { BenchError } from './bench-error.ts'
import type { Command } from './measure.ts'

/** A program that may be installed. */
export interface Peer {
  readonly name: string
  /** The first line of what it says of itself; undefined if it isn't here. */
  readonly version: string | undefined
}

/** What is lost without each. */
const uses: Record<string, string> = {
  umoci: 'the tool that koci replaces isn’t compared',
  skopeo: 'copying into containers-storage isn’t compared',
  bsdtar: 'libarchive isn’t compared',
  pigz: 'the plainest way to unpack isn’t compared',
  tar: 'the plainest way to unpack isn’t compared, nor the sum of the parts',
  debootstrap: 'the corpus has no Debian base system',
  taskset: 'one core is simulated by one thread of compression',
}

/** Looks for all of them, but for those that aren't wanted. */
export class Peers {
  readonly list: readonly Peer[]
  readonly #unwanted: readonly string[]

  /** @throws {BenchError} for an unwanted one that isn't known */
  constructor(unwanted: readonly string[] = []) {
    const unknown = unwanted.find(name => !(name in uses))
    if (unknown !== undefined)
      throw new BenchError(
        `--without: ${unknown} is not one of ${Object.keys(uses).join(', ')}`,
      )
    this.#unwanted = unwanted
    this.list = Object.keys(uses).map(name => ({
      name,
      version: unwanted.includes(name) ? undefined : versionOf(name),
    }))
  }

  /** Whether all of these are installed. */
  has(...names: readonly string[]): boolean {
    return this.without(...names).length === 0
  }

  /** Which of these aren't installed. */
  without(...names: readonly string[]): string[] {
    return names.filter(
      name => this.list.find(peer => peer.name === name)?.version === undefined,
    )
  }

  /** A line for each program that isn't here, or isn't wanted. */
  absences(): string[] {
    return this.without(...Object.keys(uses)).map(name => {
      const how = this.#unwanted.includes(name) ? 'unwanted' : 'missing'
      return `${how}: ${name}: ${uses[name]}`
    })
  }
}

/** What a tar or bsdtar of ours is told: owners by number, as every unpacker of layers does. */
const inOrder =
  'set -e; target=$1; shift; for blob; do pigz -dc "$blob" | tar x --numeric-owner -C "$target"; done'
const bsdInOrder =
  'set -e; target=$1; shift; for blob; do bsdtar -x --numeric-owner -f "$blob" -C "$target"; done'
const intoDirectories =
  'target=$1; jobs=$2; shift 2; for blob; do printf "%s\\0" "$blob"; done | xargs -0 -n 1 -P "$jobs" sh -c ' +
  '\'into=$1/${2##*/}; mkdir "$into" && pigz -dc "$2" | tar x --numeric-owner -C "$into"\' sh "$target"'

/** `pigz -dc | tar x`, layer by layer into one existing directory: verifies nothing, and leaves whiteouts as files. */
export function pigzTar(target: string, blobs: readonly string[]): Command {
  return { program: 'sh', args: ['-c', inOrder, 'sh', target, ...blobs] }
}

/** The same into a directory for each layer, several at a time. */
export function pigzTarStacked(
  target: string,
  blobs: readonly string[],
  jobs: number,
): Command {
  return { program: 'sh', args: ['-c', intoDirectories, 'sh', target, String(jobs), ...blobs] }
}

/** bsdtar, which inflates by itself, layer by layer into one existing directory. */
export function bsdtar(target: string, blobs: readonly string[]): Command {
  return { program: 'sh', args: ['-c', bsdInOrder, 'sh', target, ...blobs] }
}

/** umoci, with what an ordinary user has to add. */
export function umoci(command: 'unpack' | 'repack', ...args: readonly string[]): Command {
  const own = command === 'unpack' && !isRoot ? ['--rootless'] : []
  return { program: 'umoci', args: [command, ...own, ...args] }
}

/** Whether this process may do everything. */
export const isRoot: boolean = process.geteuid?.() === 0

function versionOf(name: string): string | undefined {
  const { status, stdout, stderr } = spawnSync(name, ['--version'], {
    encoding: 'utf8',
    timeout: 10_000,
  })
  return status === 0 ? (`${stdout}${stderr}`.trim().split('\n')[0] ?? '') : undefined
}
