// Modules of the user's: drivers that are named by path, and config files. In them `koci` is the koci that runs, wherever they
// are, so that nobody installs another copy beside them; and what is no package needs no package.json to be a module.
import { readFileSync } from 'node:fs'
import {
  registerHooks,
  type LoadHookSync,
  type ResolveFnOutput,
  type ResolveHookSync,
} from 'node:module'
import path from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { close } from '../../lib/fs/libc.ts'
import { openTrusted, readTrusted } from '../../lib/fs/trusted-file.ts'

/** How a file of the user's is read. */
export interface ImportOptions {
  /** It, and the files that it imports by path, count only if nobody but root and the user can have written them. */
  readonly trusted: boolean
}

/** Modules of the user's, by URL; those that they import by path are added. */
const modules = new Map<string, ImportOptions>()

const maxModuleBytes = 4 * 2 ** 20
const formats: Readonly<Record<string, string>> = {
  '.ts': 'module-typescript',
  '.mts': 'module-typescript',
  '.js': 'module',
  '.mjs': 'module',
}

/**
 * Imports a file.
 * @throws {UsageError} ERR_KOCI_UNTRUSTED; whatever Node, or the module itself, throws
 */
export function importModule(file: string, options: ImportOptions): Promise<object> {
  if (modules.size === 0) registerHooks({ resolve, load })
  const { href } = pathToFileURL(file)
  modules.set(href, options)
  return import(href)
}

/** `FILE:LINE`, the innermost place in modules of the user's that an error tells of. */
export function placeOf(error: unknown): string | undefined {
  const stack = error instanceof Error ? (error.stack ?? '') : ''
  const places = [...modules.keys()].flatMap(url => {
    const file = fileURLToPath(url)
    return [url, file].flatMap(name => {
      const at = stack.indexOf(`${name}:`)
      const line = /^\d+/.exec(stack.slice(at + name.length + 1))?.[0]
      return at < 0 || line === undefined ? [] : [{ at, place: `${file}:${line}` }]
    })
  })
  return places.sort((a, b) => a.at - b.at)[0]?.place
}

const resolve: ResolveHookSync = (specifier, context, next) => {
  const named = modules.get(specifier)
  if (named) {
    const found = next(specifier, context)
    // where it is, if the name is a symlink's: that is what its imports see as their importer
    modules.set(found.url, named)
    return found
  }
  const importer = context.parentURL === undefined ? undefined : modules.get(context.parentURL)
  if (!importer) return next(specifier, context)
  if (/^(\.{0,2}\/|file:)/.test(specifier)) {
    const found = next(specifier, context)
    if (!modules.has(found.url)) modules.set(found.url, importer)
    return found
  }
  const beside = { ...context, parentURL: import.meta.url }
  if (/^koci(\/|$)/.test(specifier)) return asWeRun(next(specifier, beside))
  try {
    return next(specifier, context)
  } catch (error) {
    try {
      return next(specifier, beside)
    } catch {
      throw error
    }
  }
}

/** In a checkout sources run, not what was built of them. */
function asWeRun(found: ResolveFnOutput): ResolveFnOutput {
  if (!import.meta.url.endsWith('.ts')) return found
  const url = found.url.replace('/dist/', '/').replace(/\.js$/, '.ts')
  return { url, format: 'module-typescript' }
}

const load: LoadHookSync = (url, context, next) => {
  const options = modules.get(url)
  if (!options) return next(url, context)
  const file = fileURLToPath(url)
  const format = formats[path.extname(file)]
  if (format === undefined) {
    if (options.trusted) close(openTrusted(file))
    return next(url, context)
  }
  const source = options.trusted ? readTrusted(file, maxModuleBytes) : readFileSync(file)
  // one that was written for require() is Node's business
  const isModule = options.trusted || /^\s*(import|export)\b/m.test(source.toString('latin1'))
  return isModule ? { format, source, shortCircuit: true } : next(url, context)
}
