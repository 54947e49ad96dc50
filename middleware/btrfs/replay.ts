// A send stream, replayed on names alone: new things get temporary names first, what is deleted is moved out of the way
// first, a directory is moved in one command. Only where everything is in the end counts. Of the older tree no more is
// known than that what a command speaks of must have been there.
import type { SendCommand } from './send-stream.ts'

/** Where two trees may differ; paths are bytes as latin1, relative, the root's empty. Nowhere else do they. */
export interface Places {
  /** What is at this path itself. */
  readonly paths: ReadonlySet<string>
  /** What is at this path, and anything beneath it. */
  readonly trees: ReadonlySet<string>
  /**
   * Paths of both trees at which nothing but times was set, and what the time of the last modification is now, in nanoseconds.
   * Whatever is read has its time of access set, so there may be as many as there are files.
   */
  readonly times: ReadonlyMap<string, bigint>
}

/** Something with a name, in the tree as it is after the commands so far. */
interface Entry {
  /** Its path in the older tree; undefined for what is new. */
  readonly origin: string | undefined
  isTouched: boolean
  mtime: bigint | undefined
  /** What commands spoke of; whatever else the older tree has beneath `origin` is there, too, unless it is in `left`. */
  readonly children: Map<string, Entry>
  /** Names of the older tree that were removed, or moved away. */
  readonly left: Set<string>
}

/** Replays the commands, and says where something may differ. */
export function replay(commands: Iterable<SendCommand>): Places {
  const root = entry('')
  for (const { kind, path, to, mtime } of commands) {
    const place = path.toString('latin1')
    if (kind === 'change') find(root, place).isTouched = true
    else if (kind === 'times') find(root, place).mtime = mtime
    else if (kind === 'rename') put(root, to?.toString('latin1') ?? '', take(root, place))
    else if (kind === 'remove') take(root, place)
    else put(root, place, entry(undefined))
  }
  return collect(root)
}

function entry(origin: string | undefined): Entry {
  return { origin, isTouched: false, mtime: undefined, children: new Map(), left: new Set() }
}

function find(root: Entry, path: string): Entry {
  let at = root
  for (const name of path === '' ? [] : path.split('/')) {
    let child = at.children.get(name)
    if (!child) {
      // not told of yet, so it is where it was
      const origin =
        at.origin === undefined || at.left.has(name) ? undefined : join(at.origin, name)
      at.children.set(name, (child = entry(origin)))
    }
    at = child
  }
  return at
}

/** Takes something away from where it is. */
function take(root: Entry, path: string): Entry {
  const { parent, name } = split(root, path)
  const taken = find(root, path)
  parent.children.delete(name)
  if (parent.origin !== undefined) parent.left.add(name)
  return taken
}

function put(root: Entry, path: string, what: Entry): void {
  const { parent, name } = split(root, path)
  if (parent.origin !== undefined) parent.left.add(name)
  parent.children.set(name, what)
}

function split(root: Entry, path: string): { parent: Entry; name: string } {
  const slash = path.lastIndexOf('/')
  return { parent: find(root, path.slice(0, Math.max(slash, 0))), name: path.slice(slash + 1) }
}

function collect(root: Entry): Places {
  const paths = new Set<string>()
  const trees = new Set<string>()
  const times = new Map<string, bigint>()
  const pending = [{ path: '', at: root }]
  for (let next = pending.pop(); next; next = pending.pop()) {
    const { path, at } = next
    const { origin } = at
    if (origin !== undefined && origin !== path) trees.add(origin).add(path)
    else if (origin === undefined || at.isTouched) paths.add(path)
    else if (at.mtime !== undefined) times.set(path, at.mtime)
    if (origin !== undefined) for (const name of at.left) trees.add(join(origin, name))
    for (const [name, child] of at.children) pending.push({ path: join(path, name), at: child })
  }
  return { paths, trees, times }
}

function join(directory: string, name: string): string {
  return directory === '' ? name : `${directory}/${name}`
}
