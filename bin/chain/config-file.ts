// koci.config.ts: a module that composes the chain, for what no flag can say: functions, drivers that are given objects.
// It is code, so it counts only where nobody else could have put it.
import path from 'node:path'
import { Koci } from '../../lib/application.ts'
import { createError, isError } from '../../lib/errors.ts'
import { close } from '../../lib/fs/libc.ts'
import { openTrusted } from '../../lib/fs/trusted-file.ts'
import { importModule, placeOf } from './import-module.ts'

const example = 'export default app => app.use(…)'
const extensions = ['.ts', '.mts', '.js', '.mjs']

/**
 * Has a config file compose a chain: its default export gets an application, and may be async.
 * @throws {UsageError} ERR_KOCI_UNTRUSTED, ERR_KOCI_INVALID_CONFIG_FILE; {SystemError} ERR_KOCI_IO if it can't be read
 */
export async function runConfig(name: string): Promise<Koci> {
  const file = path.resolve(name)
  const refuse = (reason: string, error?: unknown): Error => {
    const subject = placeOf(error) ?? file
    return createError('INVALID_CONFIG_FILE', { subject, reason }, error)
  }
  if (!extensions.includes(path.extname(file)))
    throw refuse(`its name has to end in ${extensions.join(', ')}`)
  close(openTrusted(file))
  const failed = (error: unknown): Error => {
    // of a module that it imports
    if (isError(error, 'UNTRUSTED')) return error
    return refuse(error instanceof Error ? error.message : `it threw ${String(error)}`, error)
  }
  const module: { default?: unknown } = await importModule(file, { trusted: true }).catch(
    (error: unknown) => {
      throw failed(error)
    },
  )
  const compose = module.default
  if (compose === undefined) throw refuse(`it has no default export - write ${example}`)
  if (typeof compose !== 'function')
    throw refuse(
      `its default export is not a function, but of type ${typeof compose} - write ${example}`,
    )
  const app = new Koci()
  let made: unknown
  try {
    made = await compose(app)
  } catch (error) {
    throw failed(error)
  }
  // export default () => cache(), export default cache
  if (made !== app && typeof made === 'object' && made !== null && app.drivers.length === 0)
    throw refuse(`its default export added nothing to the chain - write ${example}`)
  return app
}
