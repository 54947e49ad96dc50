// What koci.json says of the chain that made a bundle, so that later commands need no flags. It is data, and whoever made
// the bundle may be hostile: it can name koci's own drivers and installed packages made for it, never a path.
import type { Driver } from '../driver.ts'

/** One driver of a recorded chain. */
export interface RecordedDriver {
  readonly name: string
  /** Who brings it back: koci, the package of that name, or nobody: it was a function, or a driver from a file. */
  readonly source: 'koci' | 'package' | 'unnamed'
  readonly package?: string
  /** As text, as the command line takes them: JSON has no Infinity. */
  readonly options?: Readonly<Record<string, string>>
}

/** An installed package that a bundle may name: importing it runs its code, so that not just any will do. */
const driverPackage = /^(@[a-z0-9][\w.-]*\/)?koci-driver-[a-z0-9][\w.-]*$/

/** Whether bundles can remember drivers of a package of this name. */
export function isDriverPackage(name: string): boolean {
  return driverPackage.test(name)
}

/** What a bundle is to remember of a chain. */
export function recordChain(drivers: readonly Driver[]): RecordedDriver[] {
  return drivers.flatMap(({ name, recipe }): RecordedDriver[] => {
    if (recipe === false) return []
    if (!recipe || (recipe.package !== undefined && !isDriverPackage(recipe.package)))
      return [{ name, source: 'unnamed' }]
    const options = Object.entries(recipe.options ?? {}).flatMap(([key, value]) =>
      value === undefined ? [] : [[key, String(value)]],
    )
    return [
      {
        name,
        ...(recipe.package === undefined
          ? { source: 'koci' }
          : { source: 'package', package: recipe.package }),
        ...(options.length > 0 && { options: Object.fromEntries(options) }),
      },
    ]
  })
}

/** Whether a value from koci.json is one. */
export function isRecordedDriver(value: unknown): value is RecordedDriver {
  if (typeof value !== 'object' || value === null) return false
  const { name, source, package: from, options = {} } = value as Record<string, unknown>
  const hasSource =
    source === 'package'
      ? typeof from === 'string' && isDriverPackage(from)
      : (source === 'koci' || source === 'unnamed') && from === undefined
  return (
    hasSource &&
    typeof name === 'string' &&
    typeof options === 'object' &&
    options !== null &&
    Object.values(options).every(option => typeof option === 'string')
  )
}
