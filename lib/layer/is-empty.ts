// Whether whiteouts have anything to hide.
import { opendir } from 'node:fs/promises'
import { wrapError } from '../errors.ts'

/** Whether there is nothing in a directory. */
export async function isEmpty(directory: string): Promise<boolean> {
  try {
    const entries = await opendir(directory)
    try {
      return (await entries.read()) === null
    } finally {
      await entries.close()
    }
  } catch (error) {
    throw wrapError(error, directory)
  }
}
