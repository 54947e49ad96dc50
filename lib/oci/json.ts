// Strict JSON: what two parsers could read differently is refused, and numbers that JavaScript can't hold exactly
// survive being written again. Documents are bounded before they are parsed.
import { createError } from '../errors.ts'

/** The most bytes a manifest, index or config may have; registries draw the line there, too. */
export const maxDocumentBytes: number = 4 * 1024 * 1024

/** The deepest nesting a document may have. */
export const maxDepth = 100

const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

// JSON.rawJSON and the source text of a reviver are in every Node that koci runs on, but not in TypeScript's es2024.
const { rawJSON, isRawJSON } = JSON as unknown as {
  rawJSON: (this: void, text: string) => object
  isRawJSON: (this: void, value: unknown) => boolean
}

/**
 * Parses one JSON document. Numbers that don't come back the same (2^53+1, 1e400, 1.0) become raw values: not of
 * type number, but {@link encodeJson} writes them as they were. A key `__proto__` is an ordinary own property.
 * @throws {FormatError} ERR_KOCI_INVALID_JSON syntax, byte order mark, invalid UTF-8, a key twice in one object
 * @throws {LimitError} ERR_KOCI_LIMIT_EXCEEDED size or depth
 */
export function parseJson(
  bytes: Uint8Array,
  subject: string,
  options: { maxBytes?: number } = {},
): unknown {
  const { maxBytes = maxDocumentBytes } = options
  if (bytes.length > maxBytes) throw limit(subject, 'document size', bytes.length, maxBytes)
  const text = decode(bytes, subject)
  if (text.startsWith('\ufeff')) throw invalid(subject, 'it starts with a byte order mark')
  checkDepth(text, subject)
  try {
    const value: unknown = JSON.parse(text)
    return checkTokens(text, subject) ? JSON.parse(text, keepNumber) : value
  } catch (error) {
    if (error instanceof SyntaxError) throw invalid(subject, reasonOf(error), error)
    throw error
  }
}

/** Whether a parsed value is a number that was kept as text. */
export function isRawNumber(value: unknown): boolean {
  return isRawJSON(value)
}

/**
 * Writes a document as Go (and so umoci) does: compact, `<`, `>` and `&` escaped, a line feed at the end.
 * Keys come in the order in which the object has them.
 */
export function encodeJson(value: unknown): Buffer {
  const text = JSON.stringify(value).replaceAll(
    /\\.|[<>&\u2028\u2029]/g,
    found => escapes[found] ?? found,
  )
  return Buffer.from(`${text}\n`)
}

const escapes: Record<string, string> = {
  '<': '\\u003c',
  '>': '\\u003e',
  '&': '\\u0026',
  '\u2028': '\\u2028',
  '\u2029': '\\u2029',
  '\\b': '\\u0008',
  '\\f': '\\u000c',
}

function decode(bytes: Uint8Array, subject: string): string {
  try {
    return decoder.decode(bytes)
  } catch (error) {
    throw invalid(subject, 'it is not UTF-8', error)
  }
}

// Before JSON.parse: no input may reach its recursion. Brackets in strings don't count.
function checkDepth(text: string, subject: string): void {
  let depth = 0
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at)
    if (code === 0x22) at = endOfString(text, at)
    else if (code === 0x7b || code === 0x5b) {
      if (++depth > maxDepth)
        throw limit(subject, 'nesting depth', `over ${maxDepth}`, maxDepth)
    } else if (code === 0x7d || code === 0x5d) depth--
  }
}

function endOfString(text: string, start: number): number {
  for (let at = start + 1; at < text.length; at++) {
    const code = text.charCodeAt(at)
    if (code === 0x5c) at++
    else if (code === 0x22) return at
  }
  return text.length
}

// After JSON.parse: the text is valid. Tells whether a number needs to be kept as text.
function checkTokens(text: string, subject: string): boolean {
  const open: Array<Set<string> | undefined> = []
  let isKey = false
  let hasRaw = false
  for (let at = 0; at < text.length; at++) {
    const char = text[at] as string
    if (char === '{') open.push(new Set())
    else if (char === '[') open.push(undefined)
    else if (char === '}' || char === ']') open.pop()
    else if (char === '"') {
      const end = endOfString(text, at)
      if (isKey) addKey(open.at(-1), text.slice(at, end + 1), subject)
      at = end
    } else if (numberStart.test(char)) {
      const end = endOfNumber(text, at)
      hasRaw ||= !isExact(text.slice(at, end))
      at = end - 1
    } else if (char !== ',') continue
    isKey = (char === '{' || char === ',') && open.at(-1) !== undefined
  }
  return hasRaw
}

const numberStart = /[-\d]/
const numberPart = /[-+.\deE]/

function endOfNumber(text: string, start: number): number {
  let at = start + 1
  while (at < text.length && numberPart.test(text[at] as string)) at++
  return at
}

function addKey(keys: Set<string> | undefined, token: string, subject: string): void {
  const key = token.includes('\\') ? (JSON.parse(token) as string) : token.slice(1, -1)
  if (keys?.has(key)) throw invalid(subject, `key ${shorten(token)} occurs twice`)
  keys?.add(key)
}

function keepNumber(_key: string, value: unknown, context?: { source?: string }): unknown {
  const source = context?.source
  return typeof value === 'number' && source !== undefined && !isExact(source)
    ? rawJSON(source)
    : value
}

function isExact(source: string): boolean {
  return String(Number(source)) === source
}

function reasonOf(error: SyntaxError): string {
  return shorten(error.message)
}

function shorten(text: string): string {
  return text.length > 200 ? `${text.slice(0, 200)}…` : text
}

function invalid(subject: string, reason: string, cause?: unknown): Error {
  return createError('INVALID_JSON', { subject, reason }, cause)
}

function limit(subject: string, limit: string, value: unknown, maximum: number): Error {
  return createError('LIMIT_EXCEEDED', { subject, limit, value, maximum })
}
