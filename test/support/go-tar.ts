// The reference reader: Go's archive/tar, compiled on the spot from the one file in `go-tar/`.
import { spawnSync } from 'node:child_process'
import { accessSync, constants } from 'node:fs'
import { join } from 'node:path'

/** What Go read; names, link names and xattrs are base64, times are nanoseconds in decimal. */
export interface GoMember {
  readonly name: string
  readonly type: string
  readonly size: number
  readonly linkname: string
  readonly mode: number
  readonly uid: number
  readonly gid: number
  readonly mtime: string
  readonly atime: string
  readonly devmajor: number
  readonly devminor: number
  readonly xattrs: Readonly<Record<string, string>>
  readonly sha256: string
}

/** The members up to the error, if there was one. */
export interface GoResult {
  readonly members: readonly GoMember[]
  readonly error?: string
}

/** A reason to skip where there is no Go, else false. */
export function goMissing(): string | false {
  return spawnSync('go', ['version'], { timeout: 20_000 }).status === 0 ? false : 'needs go'
}

/** Compiles the reference reader into `dir` and returns a function that runs it over archives. */
export function buildGoTar(dir: string): (archives: readonly Buffer[]) => GoResult[] {
  const binary = join(dir, 'go-tar')
  const source = join(import.meta.dirname, 'go-tar', 'main.go')
  // Compiling the standard library takes ten seconds; what comes of it is kept where nobody minds.
  const modules = join(import.meta.dirname, '../../node_modules')
  const cache = isWritable(modules) ? join(modules, '.cache/go-build') : join(dir, 'cache')
  const env = {
    ...process.env,
    GO111MODULE: 'off',
    GOFLAGS: '',
    GOPROXY: 'off',
    GOTOOLCHAIN: 'local',
    GOCACHE: process.env['GOCACHE'] ?? cache,
    CGO_ENABLED: '0',
  }
  const built = spawnSync('go', ['build', '-o', binary, source], { env, timeout: 110_000 })
  if (built.status !== 0) throw new Error(`go build: ${String(built.stderr)}`)
  return archives => {
    const input = Buffer.concat(
      archives.flatMap(archive => {
        const length = Buffer.alloc(4)
        length.writeUInt32BE(archive.length)
        return [length, archive]
      }),
    )
    const run = spawnSync(binary, [], { input, timeout: 60_000, maxBuffer: 1 << 30 })
    if (run.status !== 0) throw new Error(`go-tar: ${String(run.stderr)}`)
    return run.stdout
      .toString()
      .trimEnd()
      .split('\n')
      .map(line => JSON.parse(line) as GoResult)
  }
}

function isWritable(path: string): boolean {
  try {
    accessSync(path, constants.W_OK)
    return true
  } catch {
    return false
  }
}
