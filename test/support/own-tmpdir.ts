// A directory for temporary files that no other test uses, so that what is left in it can be told.
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import type { Test } from 'tap'

/** Has `os.tmpdir()` name an empty directory until the end of the test. */
export function ownTmpdir(t: Test): string {
  const before = process.env['TMPDIR']
  const directory = mkdtempSync(path.join(tmpdir(), 'koci-own-'))
  process.env['TMPDIR'] = directory
  t.teardown(() => {
    if (before === undefined) delete process.env['TMPDIR']
    else process.env['TMPDIR'] = before
    rmSync(directory, { recursive: true, force: true })
  })
  return directory
}
