// `npm run demo`: makes a small image from files beside this one, unpacks it, changes the rootfs, packs the changes into
// a new layer, unpacks the result and compares both trees. No network; as root it shows what root can do.
import { execFileSync, spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import * as fs from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { Koci, type LayerEntry } from '../middleware/index.ts' // 'koci' in your program

const isRoot = process.geteuid?.() === 0
const started = performance.now()
const home = fs.mkdtempSync(path.join(tmpdir(), 'koci-demo-'))
process.on('exit', () => fs.rmSync(home, { recursive: true, force: true }))
const at = (...names: string[]): string => path.join(home, ...names)
const rootfs = (...names: string[]): string => at('bundle', 'rootfs', ...names)

title('An empty image, made by hand')
koci('init', '--layout', 'images')
koci('new', '--image', 'images:empty')

title('Its first layer, from files')
unpack('empty', 'bundle')
fs.cpSync(path.join(import.meta.dirname, 'demo-files'), rootfs(), { recursive: true })
fs.mkdirSync(rootfs('bin'))
fs.writeFileSync(rootfs('bin/hello'), '#!/bin/sh\necho hello\n')
fs.chmodSync(rootfs('bin/hello'), 0o4755)
fs.linkSync(rootfs('bin/hello'), rootfs('bin/hallo'))
fs.symlinkSync('usr/share', rootfs('share'))
fs.writeFileSync(rootfs('etc/grüße'), 'Grüße\n')
fs.mkdirSync(rootfs('tmp'))
fs.chmodSync(rootfs('tmp'), 0o1777)
if (isRoot) {
  execFileSync('mknod', [rootfs('null'), 'c', '1', '3'])
  fs.chownSync(rootfs('etc/issue'), 1234, 300_000)
}
repack('first')
await show('first', 0)

title('Four changes')
did('changed etc/motd', () => fs.appendFileSync(rootfs('etc/motd'), 'Changed.\n'))
did('deleted etc/issue', () => fs.rmSync(rootfs('etc/issue')))
did('added etc/hosts', () => fs.writeFileSync(rootfs('etc/hosts'), '127.0.0.1 localhost\n'))
did('made bin/hello 0755', () => fs.chmodSync(rootfs('bin/hello'), 0o755))
repack('second')
await show('second', 1)

title('Nothing more has changed')
repack('third')
const layers = koci('stat', '--image', 'images:third', '--json')
const { manifest } = JSON.parse(layers) as { manifest: { blob: { layers: unknown[] } } }
check(manifest.blob.layers.length === 2, 'no layer was added')

title('The second image, unpacked again')
unpack('second', 'again')
const here = listTree(rootfs())
const there = listTree(at('again', 'rootfs'))
check(here.join('\n') === there.join('\n'), `both trees are the same: ${here.length} names`)
check(!there.some(line => line.startsWith('etc/issue ')), 'etc/issue stayed deleted')
if (isRoot) check(fs.statSync(at('again/rootfs/null')).rdev === 0x103, 'the device is one')

console.log(`\nAll of it held, in ${((performance.now() - started) / 1000).toFixed(1)} s.`)

function unpack(tag: string, bundle: string): void {
  koci('unpack', '--image', `images:${tag}`, ...(isRoot ? [] : ['--rootless']), bundle)
}

function repack(tag: string): void {
  koci('repack', '--image', `images:${tag}`, '--refresh-bundle', 'bundle')
}

/** Runs the command line on the sources, in the demo's directory. */
function koci(...args: string[]): string {
  console.log(`$ koci ${args.join(' ')}`)
  const command = path.join(import.meta.dirname, '../bin/koci.ts')
  const child = spawnSync(process.execPath, [command, ...args], {
    cwd: home,
    encoding: 'utf8',
    timeout: 60_000,
  })
  if (child.status !== 0) {
    console.error(child.stderr)
    process.exit(1)
  }
  return child.stdout
}

/** Prints the entries of one layer of an image: a middleware that looks, and extracts nothing. */
async function show(tag: string, index: number): Promise<void> {
  const app = new Koci().use({
    name: 'show',
    layer: async (ctx, next) => {
      if (ctx.layer.index === index) {
        console.log(`  layer ${index}: ${ctx.layer.size} bytes, ${ctx.layer.compression}`)
        for await (const { header } of ctx.layer.entries())
          console.log(`    ${describe(header)}`)
      }
      await next()
    },
  })
  await app.unpack({
    image: `${at('images')}:${tag}`,
    bundle: at(`show-${tag}`),
    rootless: !isRoot,
  })
}

function describe(
  header: Pick<LayerEntry, 'mode' | 'uid' | 'gid' | 'rawPath'> & {
    type: string
    rawLinkname: Buffer
  },
): string {
  const mode = header.mode.toString(8).padStart(4, '0')
  const link = header.rawLinkname.length > 0 ? ` -> ${String(header.rawLinkname)}` : ''
  const owner = `${header.uid}:${header.gid}`
  return `${header.type.padEnd(9)} ${mode} ${owner.padEnd(11)} ${String(header.rawPath)}${link}`
}

/** One line per name: everything about it that a layer carries. */
function listTree(root: string): string[] {
  return fs
    .readdirSync(root, { recursive: true, encoding: 'utf8' })
    .sort()
    .map(name => {
      const file = path.join(root, name)
      const { mode, uid, gid, size, nlink, mtimeNs, rdev } = fs.lstatSync(file, {
        bigint: true,
      })
      const kind = mode & 0o170000n
      const content =
        kind === 0o100000n
          ? createHash('sha256').update(fs.readFileSync(file)).digest('hex')
          : ''
      const link = kind === 0o120000n ? fs.readlinkSync(file) : ''
      const links = kind === 0o040000n ? '' : `${nlink} ${size}`
      return `${name} ${mode.toString(8)} ${uid}:${gid} ${mtimeNs} ${rdev} ${links} ${content}${link}`
    })
}

function title(text: string): void {
  console.log(`\n== ${text}`)
}

function did(text: string, change: () => void): void {
  change()
  console.log(`  ${text}`)
}

function check(holds: boolean, text: string): void {
  console.log(`  ${holds ? 'ok' : 'NOT SO'}: ${text}`)
  if (!holds) process.exit(1)
}
