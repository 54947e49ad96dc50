// K08: repacking while somebody swaps a directory with a link to the outside, again and again.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, rmSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import t from 'tap'
import { map, type Driver } from '../../lib/index.ts'
import { chains, isRoot, makePlace, removePlace } from '../support/hostile.ts'
import { makeImage } from '../support/image.ts'
import { dir, file } from '../support/members.ts'

// far more than it takes, but tests run beside each other
t.setTimeout(900_000)

const layers = [[dir('etc'), file('etc/motd', 'hello')]]

for (const chain of chains) {
  const name = `K08 a directory that is swapped with a link all the time: ${chain.name}`
  await t.test(name, { skip: chain.skip ?? false }, async t => {
    const place = makePlace()
    const { rootfs, bundle, images, canary } = place
    const image = await makeImage(images, 'test', { layers })
    await chain.make().unpack({ image, bundle, rootless: !isRoot })
    mkdirSync(`${rootfs}/s/sub`, { recursive: true })
    for (const name of ['s/file', 's/sub/file'])
      writeFileSync(`${rootfs}/${name}`, 'of the rootfs')
    const script = `while [ -e "$1/go" ]; do
      mv -T s moved && ln -s "$2" s
      rm s; mv -T moved s
    done`
    writeFileSync(path.join(place.base, 'go'), '')
    const child = spawn('sh', ['-c', script, 'sh', place.base, canary], {
      cwd: rootfs,
      stdio: 'ignore',
    })
    const ended = once(child, 'exit')
    const stop = async (): Promise<void> => {
      rmSync(path.join(place.base, 'go'), { force: true })
      const limit = setTimeout(() => child.kill('SIGKILL'), 10_000)
      await ended
      clearTimeout(limit)
    }
    const repack = async (tag: string): Promise<string> => {
      const seen: Buffer[] = []
      const app = chain.make().use(reader(seen))
      try {
        await app.repack({ image: `${images}:${tag}`, bundle })
      } finally {
        t.notMatch(Buffer.concat(seen).toString(), /secret/, 'nothing from outside is read')
      }
      return Buffer.concat(seen).toString()
    }
    const outcomes = { done: 0, refused: 0 }
    try {
      for (let turn = 0; turn < 12; turn += 1)
        try {
          await repack(`n${turn}`)
          outcomes.done += 1
        } catch (error) {
          t.match(error, { code: 'ERR_KOCI_FILE_CHANGED' })
          outcomes.refused += 1
        }
      await stop()
      t.equal(await repack('last'), 'of the rootfs'.repeat(2), 'what is in it is read')
    } finally {
      await stop()
      t.comment(JSON.stringify(outcomes))
      chain.undo?.(place)
      removePlace(place)
    }
  })
}

for (const chain of chains) {
  const name = `a file that becomes a filled directory after it was listed: ${chain.name}`
  await t.test(name, { skip: chain.skip ?? false }, async t => {
    const place = makePlace()
    const { rootfs, bundle, images } = place
    try {
      const image = await makeImage(images, 'test', { layers })
      await chain.make().unpack({ image, bundle, rootless: !isRoot })
      for (const name of ['new', 'etc/motd']) {
        const file = path.join(rootfs, name)
        writeFileSync(file, 'another')
        const exchange: Driver = {
          name: 'exchange',
          pack: async (_ctx, next) => {
            rmSync(file)
            mkdirSync(file)
            writeFileSync(path.join(file, 'in'), 'in it')
            await next()
          },
        }
        const repack = chain
          .make()
          .use(exchange)
          .repack({ image: `${images}:new`, bundle })
        await t.rejects(repack, {
          code: 'ERR_KOCI_FILE_CHANGED',
          details: { subject: Buffer.from(name) },
        })
        rmSync(file, { recursive: true })
      }
    } finally {
      chain.undo?.(place)
      removePlace(place)
    }
  })
}

/** Keeps what is read of files. */
function reader(seen: Buffer[]): Driver {
  return {
    name: 'reader',
    pack: async (ctx, next) => {
      await next()
      if (!ctx.entries) return
      ctx.entries = map(ctx.entries, entry => {
        if (!entry.body) return entry
        return {
          ...entry,
          body: async function* () {
            for await (const chunk of entry.body?.() ?? []) {
              seen.push(Buffer.from(chunk))
              yield chunk
            }
          },
        }
      })
    },
  }
}
