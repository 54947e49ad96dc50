// Somebody who may write in a rootfs while koci works on it: exchanges a name and a symlink, again and again, atomically.
// Arguments: the directory, the name, the symlink's name, the symlink's text, and the seconds after which it gives up.
// Runs until its stdin ends, then prints how many exchanges there were.
import { AT_FDCWD, cstring, type CString } from '../../lib/fs/libc.ts'
import { errno, renameat2, symlinkat } from '../../lib/fs/syscall.ts'

const RENAME_EXCHANGE = 2
const [directory = '', name = '', link = '', text = '', seconds = '60'] = process.argv.slice(2)
const victim = cstring(`${directory}/${name}`)
const evil = cstring(`${directory}/${link}`)
const target = cstring(text)
const giveUp = Date.now() + Number(seconds) * 1000
let exchanges = 0
let isWanted = true

process.stdin.on('end', () => (isWanted = false)).resume()
process.stdout.write('ready\n')
attack()

/** A burst, then a look at stdin. */
function attack(): void {
  if (!isWanted || Date.now() > giveUp) {
    process.stdout.write(`${exchanges}\n`)
    process.exit(0)
  }
  for (let burst = 0; burst < 500; burst++) if (!exchange(victim, evil)) break
  setImmediate(attack)
}

/** Makes the symlink if it is missing; false if there is nothing to attack yet. */
function exchange(one: CString, other: CString): boolean {
  const code = renameat2(AT_FDCWD, one, AT_FDCWD, other, RENAME_EXCHANGE)
  if (code === 0) exchanges += 1
  else if (code === -errno.ENOENT) return symlinkat(target, AT_FDCWD, other) === 0
  return code === 0
}
