// What the layers of a stack look like together, worked out from their stored trees and reports alone: a model of
// overlayfs with the seams that the reports ask for. Names must be free of spaces.
import type { StackingReport } from '../../lib/layer/layer.ts'
import { describeTree } from './tree.ts'

interface Entry {
  /** Type, metadata and content, as `describeTree` says it, without links and without overlayfs's own attributes. */
  readonly text: string
  readonly isDirectory: boolean
  readonly isSymlink: boolean
  /** Entries of one inode have the same. */
  readonly group: string | undefined
}

/** The merged view of some layers; base first, each is added on top. */
export class StackedView {
  readonly #entries = new Map<string, Entry>()
  readonly #namespace: string
  #root: string | undefined
  #layers = 0

  constructor(dialect: 'overlay-trusted' | 'overlay-user') {
    this.#namespace = dialect === 'overlay-trusted' ? 'trusted.overlay.' : 'user.overlay.'
  }

  /** Why a layer with this report can't be added; undefined if it can. */
  reasonToNeedBelow(report: StackingReport): string | undefined {
    const hollow = new Set(report.hollow)
    for (const path of report.implied) {
      const below = this.#entries.get(path)
      if (below?.isSymlink === true) return `${path} is a symlink`
      if (below !== undefined && !below.isDirectory && hollow.has(path))
        return `${path} is not a directory`
    }
    const link = report.entries?.find(path => this.#entries.get(path)?.isSymlink)
    return link === undefined ? undefined : `${link} is a symlink`
  }

  add(dir: string, report: StackingReport): void {
    const missing = new Set(report.missing)
    const hollow = new Set(report.hollow)
    const layer = this.#layers++
    if (report.opaque) this.#entries.clear()
    for (const line of describeTree(dir)) {
      const [path = '', ...words] = line.split(' ')
      const entry = this.#entry(words, `${layer}:${path}`, layer)
      if (path === '.') {
        if (report.root) this.#root = entry.text
        continue
      }
      if (words[0] === 'char' && words.includes('0,0')) {
        this.#remove(path)
        continue
      }
      const below = this.#entries.get(path)
      const isOpaque = words.includes(`${this.#namespace}opaque=79`)
      const merges = entry.isDirectory && below?.isDirectory === true && !isOpaque
      if (hollow.has(path) && below === undefined) continue
      if (!merges) this.#remove(path)
      this.#entries.set(path, missing.has(path) && below?.isDirectory === true ? below : entry)
    }
  }

  /** As `describeTree`; without the root if no layer has an entry for it. */
  lines(): string[] {
    const firsts = new Map<string, string>()
    const lines = [...this.#entries]
      .map(([path, entry]) => ({ path, entry }))
      .sort((a, b) => compareTrees(a.path, b.path))
      .map(({ path, entry: { text, group } }) => {
        const first = group === undefined ? undefined : firsts.get(group)
        if (group !== undefined && first === undefined) firsts.set(group, path)
        return `${path} ${text}${first === undefined ? '' : ` =${first}`}`
      })
    return this.#root === undefined ? lines : [`. ${this.#root}`, ...lines]
  }

  get hasRoot(): boolean {
    return this.#root !== undefined
  }

  #entry(words: readonly string[], self: string, layer: number): Entry {
    const [type] = words
    const own = this.#namespace
    const link = words.find(word => word.startsWith('=') && word.length > 1)
    const text = words
      .filter(word => word !== link)
      .filter(word => !word.startsWith(own) || word.startsWith(`${own}overlay.`))
      .map(word => word.replace(`${own}overlay.`, own))
      .join(' ')
    return {
      text,
      isDirectory: type === 'dir',
      isSymlink: type === 'link',
      group: type === 'dir' ? undefined : link ? `${layer}:${link.slice(1)}` : self,
    }
  }

  #remove(path: string): void {
    this.#entries.delete(path)
    for (const other of this.#entries.keys())
      if (other.startsWith(`${path}/`)) this.#entries.delete(other)
  }
}

/** In the order of `describeTree`: a directory before what is in it, names by their bytes. */
function compareTrees(a: string, b: string): number {
  const key = (path: string): string => path.replaceAll('/', '\0')
  return key(a) < key(b) ? -1 : 1
}
