// npm run fuzz [-- --seconds N --seed S --count C]: spoilt layers, one number each from the seed on, until the time is
// up (a minute), or C inputs are through. An input that fails is written to a file, and how to see it again is said.
import { spawn } from 'node:child_process'
import { mkdtempSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { inputOf, removeAll } from '../support/fuzz-inputs.ts'
import { goMissing } from '../support/go-tar.ts'
import { memoryParent } from '../support/memory-dir.ts'

/** One input takes milliseconds; compiling the Go program for the first time takes longer. */
const patience = 100_000
/** Of memory, in KiB: layers are read in pieces, whatever they claim. */
const maxMemory = 1 << 20

const { values } = parseArgs({
  options: {
    seconds: { type: 'string' },
    seed: { type: 'string' },
    count: { type: 'string' },
    keep: { type: 'string' },
  },
})
const seed = Number(values.seed ?? Date.now() % 2 ** 31)
const count = Number(values.count ?? 2 ** 31)
const seconds = Number(values.seconds ?? (values.count === undefined ? 60 : Infinity))
const without = goMissing()
const directory = mkdtempSync(path.join(memoryParent(), 'koci-fuzz-'))
const total: Record<string, number> = {}
let done = 0
let memory = 0
let problems = 0

console.log(`seed ${seed}${without === false ? '' : `, no comparison: ${without}`}`)
try {
  await fuzz()
} finally {
  removeAll(directory)
}
console.log(
  `${done} inputs, ${problems} problems, ${memory >> 10} MiB: ${JSON.stringify(total)}`,
)
process.exitCode = problems > 0 || done === 0 ? 1 : 0

async function fuzz(): Promise<void> {
  const args = [
    'worker.ts',
    directory,
    String(seed),
    String(count),
    without === false ? 'go' : '',
  ]
  const child = spawn(process.execPath, ['--max-old-space-size=512', ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
    cwd: import.meta.dirname,
    env: { ...process.env, NODE_OPTIONS: '' },
  })
  const stop = (): boolean => child.kill('SIGKILL')
  const stopped = { early: false, hanging: false }
  const interrupt = (): void => {
    stopped.early = stop()
  }
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, interrupt)
  let words = ''
  child.stderr.setEncoding('utf8').on('data', text => (words += text))
  const ended = new Promise<number | null>(resolve => child.on('close', resolve))
  const lines = createInterface(child.stdout).on('line', line => {
    const said = JSON.parse(line) as Record<string, unknown>
    if (said['ready'] !== true) hear(said)
    else if (Number.isFinite(seconds))
      void sleep(seconds * 1000, undefined, { ref: false }).then(interrupt)
  })
  const watch = setInterval(() => {
    if (Date.now() - movedAt() < patience) return
    stopped.hanging = stop()
  }, 1000)
  const code = await ended
  clearInterval(watch)
  lines.close()
  if (stopped.hanging) fail(current(), `hangs: nothing for ${patience / 1000} s`)
  else if (code !== 0 && !stopped.early) fail(current(), `the worker died: ${code}\n${words}`)
}

function hear(said: Readonly<Record<string, unknown>>): void {
  if (typeof said['seed'] === 'number') {
    fail(said['seed'], `${String(said['kind'])}: ${String(said['problem'])}`)
    return
  }
  done += Number(said['done'])
  memory = Number(said['memory'])
  for (const [kind, times] of Object.entries(said['kinds'] as Record<string, number>))
    total[kind] = (total[kind] ?? 0) + times
  if (memory > maxMemory) fail(current(), `${memory >> 10} MiB of memory`)
}

function fail(at: number, what: string): void {
  problems += 1
  const { tar, blob, compression } = inputOf(at)
  const files = path.resolve(values.keep ?? '.', `fuzz-${at}`)
  writeFileSync(`${files}.tar`, tar)
  if (compression !== 'none') writeFileSync(`${files}.tar.${compression}`, blob)
  console.log(`${what}\n${files}.tar; again: npm run fuzz -- --seed ${at} --count 1\n`)
}

function movedAt(): number {
  const found = statSync(path.join(directory, 'position'), { throwIfNoEntry: false })
  return found?.mtimeMs ?? startedAt()
}

function startedAt(): number {
  return statSync(directory).ctimeMs
}

function current(): number {
  return Number(readFileSync(path.join(directory, 'position'), 'utf8'))
}
