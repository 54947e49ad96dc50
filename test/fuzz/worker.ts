// Runs inputs one after the other, synchronously, and says on stdout, line by line in JSON, what went wrong. Where it is
// stands in a file, so that whoever started it knows which input it died of, or hangs in.
import { openSync, writeSync } from 'node:fs'
import path from 'node:path'
import { buildGoTar } from '../support/go-tar.ts'
import { inputOf, runInput } from '../support/fuzz-inputs.ts'

const [directory = '', first = '0', count = '1', withGo = ''] = process.argv.slice(2)
/** So many go to Go at once, and so many are done between two reports. */
const batch = 200
const report = 20
const position = openSync(path.join(directory, 'position'), 'w')
const readByGo = withGo === 'go' ? buildGoTar(directory) : undefined
const say = (message: unknown): number => writeSync(1, `${JSON.stringify(message)}\n`)

say({ ready: true })
const end = Number(first) + Number(count)
for (let at = Number(first); at < end; at += batch) {
  const length = Math.min(batch, end - at)
  writeSync(position, String(at).padEnd(16), 0)
  const inputs = Array.from({ length }, (_, index) => inputOf(at + index))
  const answers = readByGo?.(inputs.map(({ tar }) => tar))
  let kinds: Record<string, number> = {}
  let done = 0
  for (const [index, input] of inputs.entries()) {
    writeSync(position, String(input.seed).padEnd(16), 0)
    const { kind, problem } = runInput(input, path.join(directory, 'case'), answers?.[index])
    kinds[kind] = (kinds[kind] ?? 0) + 1
    done += 1
    if (problem !== undefined) say({ seed: input.seed, kind, problem })
    if (done < report && index < length - 1) continue
    say({ done, kinds, memory: process.resourceUsage().maxRSS })
    kinds = {}
    done = 0
  }
}
