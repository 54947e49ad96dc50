// The storage drivers in sh of examples/hooks, installed in a directory as a user would.
import { chmodSync, copyFileSync, readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'

const examples = path.resolve(import.meta.dirname, '../../examples/hooks')

/** Puts script and file into a directory; returns the file's path. */
export function installExample(name: 'overlay' | 'btrfs', base: string, store: string): string {
  const script = path.join(base, `${name}.sh`)
  const file = path.join(base, 'hooks.toml')
  copyFileSync(path.join(examples, `${name}.sh`), script)
  chmodSync(script, 0o755)
  const text = readFileSync(path.join(examples, `${name}.toml`), 'utf8')
  const installed = text
    .replaceAll(`/usr/local/libexec/koci/${name}.sh`, script)
    .replaceAll(/\/var\/lib\/koci[-/]layers/g, store)
  writeFileSync(file, installed, { mode: 0o644 })
  return file
}
