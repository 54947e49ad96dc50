// Preloaded into a process: tells on standard error, at its end, how much memory it had at most, as the kernel counts it.
import { readFileSync, writeSync } from 'node:fs'

process.on('exit', () => {
  const [, peak = ''] =
    /^VmHWM:\s*(\d+) kB$/m.exec(readFileSync('/proc/self/status', 'utf8')) ?? []
  writeSync(2, `peak ${peak}\n`)
})
