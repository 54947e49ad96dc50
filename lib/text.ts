// Names are bytes; people and patterns need text. Nothing here is ever turned back into a name.

const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })
const escapes: Record<string, string> = { '\n': '\\n', '\r': '\\r', '\t': '\\t' }

/**
 * Bytes as text for matching: valid UTF-8 as it is, every other byte as `\xNN`.
 * Not reversible: a name that holds a literal `\xff` reads the same.
 */
export function toText(bytes: Uint8Array): string {
  try {
    return decoder.decode(bytes)
  } catch {
    return decodeLossless(bytes)
  }
}

/** Bytes or text for a terminal or a log line: control characters, bidirectional marks and byte order marks are escaped, too. */
export function printable(value: Uint8Array | string): string {
  const text = typeof value === 'string' ? value : toText(value)
  return text.replaceAll(
    /[\p{Cc}\p{Cs}\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]/gu,
    char => escapes[char] ?? unicodeEscape(char),
  )
}

function unicodeEscape(char: string): string {
  const code = char.codePointAt(0) ?? 0
  return code < 0x100
    ? `\\x${code.toString(16).padStart(2, '0')}`
    : `\\u${code.toString(16).padStart(4, '0')}`
}

function decodeLossless(bytes: Uint8Array): string {
  let text = ''
  for (let at = 0; at < bytes.length;) {
    const length = sequenceLength(bytes[at] ?? 0)
    try {
      text += decoder.decode(bytes.subarray(at, at + length))
      at += length
    } catch {
      text += `\\x${(bytes[at] ?? 0).toString(16).padStart(2, '0')}`
      at += 1
    }
  }
  return text
}

function sequenceLength(lead: number): number {
  if (lead < 0xc0) return 1
  if (lead < 0xe0) return 2
  return lead < 0xf0 ? 3 : 4
}
