// Node finds out for each imported file where it really is, which package.json rules it, and of what kind it is. Of the
// built files of koci all of that is known, and there are more than a hundred of them: a tenth of a short command's time.
// An old Node has to get through this file, too.
import module from 'node:module'

const root = new URL('../', import.meta.url).href
// what is beside sources may be anything
const isBuilt = import.meta.url.endsWith('.js')

/** Has imports among the built files resolved without a look at the disk; everything else is left to Node. */
export function resolveOwnModules(): void {
  if (!isBuilt) return
  // a hook is for the thread that registers it alone, so that workers aren't concerned
  module.registerHooks({
    resolve(specifier, context, next) {
      const { parentURL } = context
      const isOwn = parentURL !== undefined && parentURL.startsWith(root)
      if (!isOwn || !specifier.startsWith('.') || !specifier.endsWith('.js'))
        return next(specifier, context)
      return { url: new URL(specifier, parentURL).href, format: 'module', shortCircuit: true }
    },
  })
}
