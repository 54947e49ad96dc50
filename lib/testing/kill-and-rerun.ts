// An unpack that is killed at some moment, and run again: the second one has to make what an undisturbed one makes, from
// whatever the first one left.
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { extname } from 'node:path'
import { Bundle } from '../bundle/bundle.ts'
import { story } from './images.ts'
import type { Place } from './test-driver.ts'

const child = new URL(`./kill-child${extname(import.meta.url)}`, import.meta.url)
const moments = 4

/** Kills it at moments spread over the time that it takes. */
export async function killAndRerun(place: Place, module: string): Promise<void> {
  const image = await story.save(place.layout)
  const expected = await place.plain(image)
  const whole = await unpackInChild(place, module, image, place.newBundle())
  assert.equal(whole.signal, null, 'undisturbed, it ends by itself')
  assert.equal(whole.code, 0)
  for (let at = 1; at <= moments; at++) {
    const bundle = place.newBundle()
    const killed = await unpackInChild(place, module, image, bundle, (whole.ms * at) / moments)
    // it may have been faster
    if (killed.code === 0) continue
    const { rootless } = place
    // killed after its last write, but before it had ended, it left a whole bundle
    if (!(await Bundle.peek(bundle))) await place.app().unpack({ image, bundle, rootless })
    assert.equal(existsSync(bundle), true)
    assert.deepEqual(place.describe(bundle), expected, `killed at ${at}/${moments}`)
  }
}

interface Ended {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
  readonly ms: number
}

function unpackInChild(
  place: Place,
  module: string,
  image: string,
  bundle: string,
  killAfterMs: number = 60_000,
): Promise<Ended> {
  const start = performance.now()
  return new Promise((resolve, reject) => {
    const args = [child.pathname, module, place.store, image, bundle, String(place.rootless)]
    const running = spawn(process.execPath, args, {
      stdio: 'ignore',
      timeout: Math.ceil(killAfterMs),
      killSignal: 'SIGKILL',
    })
    running.on('error', reject)
    running.on('exit', (code, signal) =>
      resolve({ code, signal, ms: performance.now() - start }),
    )
  })
}
