// The name the program was called by, which help and messages use: `koci`, or `umoci` where a link of that name stands
// for it. Read by an old Node, too: nothing new here.
import path from 'node:path'
import process from 'node:process'

/** The last component of how the program was called, without the ending of a source file. */
export const programName: string = nameOf(process.argv[1])

function nameOf(file: string | undefined): string {
  const name = path.basename(file || '').replace(/\.[jt]s$/, '')
  // what a test or another program loads isn't called by a name of ours
  return /^[\w.+-]+$/.test(name) && !name.endsWith('.test') ? name : 'koci'
}
