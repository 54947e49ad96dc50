// Texts in Go's manner, as umoci's stat has them: quoted where they would be misread, sizes in decimal units.
// Nothing that comes from here can hold a control character.

/**
 * Quotes a text (Go's strconv.Quote) if it isn't plain; `precise` texts also if they are empty or hold a space,
 * members of a comma-separated list also if they hold a comma; `always` quotes whatever it is.
 */
export function quote(
  text: string,
  kind: 'loose' | 'precise' | 'member' | 'always' = 'loose',
): string {
  const quoted = `"${text.replaceAll(unprintable, escape)}"`
  if (kind === 'always' || quoted !== `"${text}"`) return quoted
  if (kind === 'loose') return text
  if (text === '' || /\s/u.test(text)) return quoted
  return kind === 'member' && text.includes(',') ? quoted : text
}

/** `135B`, `1.107kB`, `38.82MB`: four significant digits. */
export function humanSize(bytes: number): string {
  const units = ['B', 'kB', 'MB', 'GB', 'TB', 'PB']
  let value = bytes
  let unit = 0
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000
    unit += 1
  }
  return `${Number(value.toPrecision(4))}${units[unit]}`
}

/** Bytes as xxd shows them, at most 256. */
export function hexDump(bytes: Uint8Array): string[] {
  const shown = bytes.subarray(0, 256)
  const lines: string[] = []
  for (let at = 0; at < shown.length; at += 16) {
    const row = Buffer.from(shown.subarray(at, at + 16))
    const pairs = (row.toString('hex').match(/.{1,4}/g) ?? []).join(' ')
    const text = row.toString('latin1').replaceAll(/[^\x20-\x7e]/g, '.')
    lines.push(`${at.toString(16).padStart(4, '0')}: ${pairs.padEnd(39)}  ${text}`)
  }
  if (bytes.length > 256) lines.push(`....  (extra ${bytes.length - 256} bytes omitted)`)
  return lines
}

const unprintable = /["\\]|[^\p{L}\p{M}\p{N}\p{P}\p{S} ]/gu

const named: Record<string, string> = {
  '"': '\\"',
  '\\': '\\\\',
  '\x07': '\\a',
  '\b': '\\b',
  '\f': '\\f',
  '\n': '\\n',
  '\r': '\\r',
  '\t': '\\t',
  '\v': '\\v',
}

function escape(char: string): string {
  const name = named[char]
  if (name !== undefined) return name
  const code = char.codePointAt(0) ?? 0
  if (code < 0x80) return `\\x${code.toString(16).padStart(2, '0')}`
  return code < 0x10000
    ? `\\u${code.toString(16).padStart(4, '0')}`
    : `\\U${code.toString(16).padStart(8, '0')}`
}
