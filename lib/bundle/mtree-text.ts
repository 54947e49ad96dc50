// Any mtree manifest as what it says: paths with keywords, values as they are written. For manifests of other tools, with
// whatever keywords; records of bundles are read by mtree-parser.ts, which is strict, and fast.
import { createError } from '../errors.ts'
import { decodeVis } from './vis.ts'

/** A path of a manifest; keywords by their one name (see {@link canonicalKeyword}), attributes as `xattr.NAME`. */
export interface MtreeEntry {
  /** Without leading or trailing slash; the root's is empty. */
  readonly rawPath: Buffer
  /** Values as written; of keywords without a value, an empty text. Text is bytes as latin1. */
  readonly keywords: ReadonlyMap<string, string>
}

const synonyms: Readonly<Record<string, string>> = {
  md5: 'md5digest',
  rmd160: 'ripemd160digest',
  rmd160digest: 'ripemd160digest',
  sha1: 'sha1digest',
  sha256: 'sha256digest',
  sha384: 'sha384digest',
  sha512: 'sha512digest',
  sha512256: 'sha512256digest',
  xattrs: 'xattr',
}

/** The one name of a keyword that has several. */
export function canonicalKeyword(name: string): string {
  return Object.hasOwn(synonyms, name) ? (synonyms[name] as string) : name
}

/**
 * Reads a manifest, in the nested form (a directory, what is in it, `..`) and in that of whole paths.
 * A path that comes twice adds keywords to what was said before.
 * @throws {FormatError} ERR_KOCI_INVALID_MTREE
 */
export function parseMtreeText(bytes: Buffer, subject: string): MtreeEntry[] {
  const entries = new Map<string, { rawPath: Buffer; keywords: Map<string, string> }>()
  const directories: string[] = []
  let defaults = new Map<string, string>()
  let number = 0
  let pending = ''
  const invalid = (reason: string): Error =>
    createError('INVALID_MTREE', { subject, line: number, reason })

  for (const line of bytes.toString('latin1').split('\n')) {
    number++
    const whole = pending + line.replace(/\r$/, '')
    pending = ''
    if (/^\s*(#|$)/.test(whole)) continue
    // an escaped backslash is no continuation
    if (/(^|[^\\])(\\\\)*\\$/.test(whole)) {
      pending = `${whole.slice(0, -1)} `
      continue
    }
    const [name = '', ...words] = whole.trim().split(/[ \t]+/)
    if (name === '/set') defaults = new Map([...defaults, ...keywordsOf(words)])
    else if (name === '/unset')
      for (const word of words) {
        if (word === 'all') defaults = new Map()
        defaults.delete(canonicalKeyword(word))
      }
    else if (name.startsWith('/')) throw invalid(`${name} is neither /set nor /unset`)
    else if (name === '..') {
      if (directories.pop() === undefined) throw invalid('".." above the root')
    } else {
      const isWhole = name.includes('/')
      const path = isWhole ? cleanPath(name) : joinNames(directories.at(-1), decode(name))
      if (path === undefined) throw invalid('a malformed escape in the name, or ".." in it')
      const keywords = new Map([...defaults, ...keywordsOf(words)])
      const known = entries.get(path)
      for (const [key, value] of keywords) known?.keywords.set(key, value)
      if (!known) entries.set(path, { rawPath: Buffer.from(path, 'latin1'), keywords })
      if (!isWhole && keywords.get('type') === 'dir') directories.push(path)
    }
  }
  if (entries.size === 0) throw invalid('it has no entries')
  return [...entries.values()]
}

function* keywordsOf(words: readonly string[]): Generator<[string, string]> {
  for (const word of words) {
    const equals = word.startsWith('xattr.')
      ? word.lastIndexOf('=', word.search(/=*$/) - 1)
      : word.indexOf('=')
    const name = equals < 0 ? word : word.slice(0, equals)
    yield [canonicalKeyword(name), equals < 0 ? '' : word.slice(equals + 1)]
  }
}

/** A name of the nested form; undefined for one that isn't a single component. */
function decode(name: string): string | undefined {
  const source = Buffer.from(name, 'latin1')
  const target = Buffer.alloc(source.length)
  const end = decodeVis(source, 0, source.length, target, 0)
  const decoded = target.toString('latin1', 0, Math.max(end, 0))
  return end <= 0 || decoded.includes('/') || decoded.includes('\0') || decoded === '..'
    ? undefined
    : decoded
}

function cleanPath(name: string): string | undefined {
  const parts = name.split('/').filter(part => part !== '' && part !== '.')
  const decoded = parts.map(decode)
  return decoded.includes(undefined) ? undefined : decoded.join('/')
}

function joinNames(
  directory: string | undefined,
  name: string | undefined,
): string | undefined {
  if (name === undefined || name === '.')
    return name === undefined ? undefined : (directory ?? '')
  return directory === undefined || directory === '' ? name : `${directory}/${name}`
}
