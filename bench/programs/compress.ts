// Compresses a file to nowhere. Arguments: address of the built library, file, how many blocks at the same time.
import { closeSync, openSync, readSync } from 'node:fs'
import type * as compress from '../../lib/layer/compress.ts'

const [dist = '', file = '', concurrency = '1'] = process.argv.slice(2)
const { createCompressor } = (await import(`${dist}lib/layer/compress.js`)) as typeof compress

let compressed = 0
const compressor = createCompressor(
  'gzip',
  chunk => {
    compressed += chunk.length
  },
  { concurrency: Number(concurrency) },
)
const piece = Buffer.alloc(1 << 18)
const fd = openSync(file, 'r')
for (let length = 1; length > 0;) {
  length = readSync(fd, piece)
  await compressor.write(piece.subarray(0, length))
}
closeSync(fd)
await compressor.end()
if (compressed === 0) process.exitCode = 1
