// Doing something around each call of a function of node:fs/promises, whoever imports it: what somebody else does to a
// file just then.
import promises from 'node:fs/promises'
import { syncBuiltinESMExports } from 'node:module'

type Call = (...args: unknown[]) => Promise<unknown>

/** `each` gets the first argument and the call itself; until the test is over. */
export function around(
  t: { teardown(after: () => void): void },
  name: 'chmod' | 'lstat' | 'mkdir' | 'rmdir',
  each: (file: string, call: () => Promise<unknown>) => Promise<unknown>,
): void {
  const original = promises[name] as Call
  const put = (value: Call): void => {
    Object.assign(promises, { [name]: value })
    syncBuiltinESMExports()
  }
  put((file, ...more) => each(String(file), () => original(file, ...more)))
  t.teardown(() => put(original))
}
