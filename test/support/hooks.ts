// A place for hooks: a directory that nobody else can write, scripts in it, and the file that names them.
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'

/** The directory, and what makes things in it. */
export interface HookPlace {
  readonly base: string
  /** Writes an executable sh script; returns its path. */
  readonly script: (name: string, body: string) => string
  /** Writes hooks.toml; returns its path. */
  readonly file: (text: string) => string
}

/** Makes one, removed with the test. The project's own directory may lie below somebody else's. */
export function hookPlace(t: { teardown(run: () => void): void }): HookPlace {
  const base = mkdtempSync(path.join(tmpdir(), 'koci-test-hooks-'))
  t.teardown(() => rmSync(base, { recursive: true, force: true }))
  const write = (name: string, text: string, mode: number): string => {
    const file = path.join(base, name)
    writeFileSync(file, text)
    chmodSync(file, mode)
    return file
  }
  return {
    base,
    script: (name, body) => write(name, `#!/bin/sh\n${body}\n`, 0o755),
    file: text => write('hooks.toml', text, 0o644),
  }
}

/** A table of hooks.toml for a command; `rest` are further lines. */
export function hookTable(
  hook: string,
  command: string | readonly string[],
  rest = '',
): string {
  const words = JSON.stringify([command].flat())
  return `[[${hook}]]\ncommand = ${words}\n${rest}\n`
}
