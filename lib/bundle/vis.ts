// vis(3) as go-mtree writes it: every byte outside printable ASCII, whitespace and `* ? [ #` as `\ooo`, the
// backslash doubled. Decoding takes every form that its unvis(3) takes. Works on bytes, in place, without strings.

const backslash = 0x5c
const plain = 0
const octal = 1
const doubled = 2

const forms = new Uint8Array(256).fill(octal)
forms.fill(plain, 0x21, 0x7f)
for (const char of '*?[#') forms[char.charCodeAt(0)] = octal
forms[backslash] = doubled

/** How many bytes one byte of a name can become. */
export const maxVisExpansion = 4

/**
 * Encodes `source[from, to)` into `target` at `at` and returns the end of what was written.
 * The caller has seen to room for {@link maxVisExpansion} times as many bytes.
 */
export function encodeVis(
  source: Uint8Array,
  from: number,
  to: number,
  target: Uint8Array,
  at: number,
): number {
  for (let i = from; i < to; i++) {
    const byte = source[i] as number
    const form = forms[byte]
    if (form === octal) {
      target[at++] = backslash
      target[at++] = 0x30 + (byte >> 6)
      target[at++] = 0x30 + ((byte >> 3) & 7)
      target[at++] = 0x30 + (byte & 7)
    } else {
      if (form === doubled) target[at++] = backslash
      target[at++] = byte
    }
  }
  return at
}

/**
 * Decodes `source[from, to)` into `target` at `at` (never longer than the source) and returns the end of what was
 * written, or -1 if an escape is malformed.
 */
export function decodeVis(
  source: Uint8Array,
  from: number,
  to: number,
  target: Uint8Array,
  at: number,
): number {
  for (let i = from; i < to;) {
    const byte = source[i++] as number
    if (byte !== backslash) {
      target[at++] = byte
      continue
    }
    if (i >= to) return -1
    const char = source[i++] as number
    let value = simple(char)
    if (isOctal(char)) {
      value = char - 0x30
      for (let more = 0; more < 2 && i < to && isOctal(source[i] as number); more++)
        value = value * 8 + (source[i++] as number) - 0x30
    } else if (char === 0x78 /* x */) {
      value = i + 2 <= to ? hexValue(source[i]) * 16 + hexValue(source[i + 1]) : -1
      i += 2
    } else if (char === 0x5e /* ^ */) {
      value = i < to ? control(source[i++] as number) : -1
    } else if (char === 0x4d /* M */) {
      if (i + 2 <= to) value = meta(source[i] as number, source[i + 1] as number)
      i += 2
    } else if (char === 0x24 /* $, a marker for nothing */) continue
    if (!(value >= 0 && value <= 0xff)) return -1
    target[at++] = value
  }
  return at
}

function simple(char: number): number {
  switch (char) {
    case backslash:
      return backslash
    case 0x6e: // n
      return 0x0a
    case 0x72: // r
      return 0x0d
    case 0x62: // b
      return 0x08
    case 0x61: // a
      return 0x07
    case 0x76: // v
      return 0x0b
    case 0x74: // t
      return 0x09
    case 0x66: // f
      return 0x0c
    case 0x73: // s
      return 0x20
    case 0x45: // E
      return 0x1b
    default:
      return -1
  }
}

function meta(kind: number, char: number): number {
  if (kind === 0x2d /* - */) return 0x80 | char
  return kind === 0x5e ? 0x80 | control(char) : -1
}

function isOctal(char: number): boolean {
  return char >= 0x30 && char <= 0x37
}

function control(char: number): number {
  return char === 0x3f ? 0x7f : char & 0x1f
}

/** The value of a hexadecimal digit in either case, or NaN. */
export function hexValue(char: number | undefined): number {
  if (char === undefined) return Number.NaN
  if (char >= 0x30 && char <= 0x39) return char - 0x30
  const lower = char | 0x20
  return lower >= 0x61 && lower <= 0x66 ? lower - 0x57 : Number.NaN
}
