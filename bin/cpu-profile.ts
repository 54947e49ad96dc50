// --cpu-profile: where the time of the main thread goes, in the form that the developer tools of browsers read.
import { writeFile } from 'node:fs/promises'
import { Session } from 'node:inspector/promises'
import { wrapError } from '../lib/errors.ts'

/** Does something; what it took is written to the file whatever comes of it. */
export async function profiled<T>(file: string, action: () => Promise<T>): Promise<T> {
  const session = new Session()
  session.connect()
  await session.post('Profiler.enable')
  await session.post('Profiler.start')
  try {
    return await action()
  } finally {
    const { profile } = await session.post('Profiler.stop')
    session.disconnect()
    await writeFile(file, JSON.stringify(profile)).catch(error => {
      throw wrapError(error, file)
    })
  }
}
