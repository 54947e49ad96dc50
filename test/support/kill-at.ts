// Loaded into a process before anything else: the process is killed just before it does something to the file system for
// the `KOCI_KILL_AT`th time on its main thread. What is only read doesn't count.
import { createRequire, syncBuiltinESMExports } from 'node:module'
import fs from 'node:fs'
import promises from 'node:fs/promises'
import type koffi from 'koffi'

let left = Number(process.env['KOCI_KILL_AT'] ?? Infinity)

function count(): void {
  left -= 1
  if (left === 0) process.kill(process.pid, 'SIGKILL')
}

type Calls = Record<string, (...args: unknown[]) => unknown>

function watch(owner: object, names: readonly string[]): void {
  const calls = owner as Calls
  for (const name of names) {
    const call = calls[name]
    if (!call) throw new RangeError(`there is no ${name}`)
    calls[name] = function (this: unknown, ...args) {
      count()
      return call.apply(this, args)
    }
  }
}

watch(fs, ['chmodSync', 'mkdirSync', 'rmSync', 'utimesSync', 'writeFileSync'])
watch(promises, ['chmod', 'chown', 'mkdir', 'rename', 'rm', 'utimes', 'writeFile'])
const handle = await promises.open('/dev/null')
watch(Object.getPrototypeOf(handle) as object, ['writeFile', 'sync'])
await handle.close()
syncBuiltinESMExports()

/** By name; of `syscall(2)` only what has this many arguments changes something. */
const native = ['flock', 'unlinkat', 'mkdirat', 'syncfs', 'syscall'] as const
const loaded = createRequire(import.meta.url)('koffi') as typeof koffi
const load = loaded.load.bind(loaded)
loaded.load = path => {
  const library = load(path)
  const func = library.func.bind(library) as (...args: unknown[]) => unknown
  const watched = (name: string, result: string, args: string[]): unknown => {
    const call = func(name, result, args) as Calls & ((...args: unknown[]) => unknown)
    const isReading = name === 'syscall' && args.length < 5
    if (!native.some(each => each === name) || isReading) return call
    const counted = (...values: unknown[]): unknown => {
      count()
      return call(...values)
    }
    return Object.assign(counted, {
      async: (...values: unknown[]): unknown => {
        count()
        return call['async']?.(...values)
      },
    })
  }
  return new Proxy(library, {
    get: (target, name) => (name === 'func' ? watched : (Reflect.get(target, name) as unknown)),
  })
}
