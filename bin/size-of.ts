// Bytes for people.

/** With a decimal unit and one digit behind the point: `1.5 MB`. */
export function sizeOf(bytes: number): string {
  if (bytes < 1000) return `${bytes} B`
  const unit = bytes < 1e6 ? 'kB' : bytes < 1e9 ? 'MB' : 'GB'
  const divisor = { kB: 1e3, MB: 1e6, GB: 1e9 }[unit]
  return `${(bytes / divisor).toFixed(1)} ${unit}`
}
