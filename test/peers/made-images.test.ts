// Images that koci made without a bundle, or copied: other tools take them, unpack the same tree, and run them.
import { mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import t, { type Test } from 'tap'
import { finish, isRoot, missing, run, temporary } from '../support/peers.ts'
import { makeImage } from '../support/image.ts'
import { peerImage } from '../support/peer-image.ts'
import { describeTree } from '../support/tree.ts'
import { koci } from '../bin/run-koci.ts'

const rootless = isRoot ? [] : ['--rootless']

/** How each image is made of `images:base`; under its own name as the tag. */
const made: Readonly<Record<string, readonly string[]>> = {
  flattened: ['flatten', '--image=images:base', '--tag=flattened'],
  zstd: ['flatten', '--image=images:base', '--tag=zstd', '--compress=zstd'],
  upper: ['flatten', '--image=images:base', '--tag=upper', '--layers=1..'],
  inserted: ['insert', '--image=images:flattened', '--tag=inserted', 'host', '/new'],
  added: ['raw', 'add-layer', '--image=images:base', '--tag=added', 'layer.tar'],
  configured: ['config', '--image=images:base', '--tag=configured', '--config.user=1:2'],
  annotated: ['flatten', '--image=images:base', '--tag=annotated', '--layer.annotation=a=<b>'],
}

async function setUp(t: Test): Promise<string> {
  const cwd = temporary(t, 'made')
  await makeImage(path.join(cwd, 'images'), 'base', peerImage)
  mkdirSync(path.join(cwd, 'host'))
  writeFileSync(path.join(cwd, 'host/file'), 'from the host')
  run('tar', ['-C', path.join(cwd, 'host'), '-cf', path.join(cwd, 'layer.tar'), 'file'])
  for (const [tag, args] of Object.entries(made)) {
    await succeed(cwd, args)
    await succeed(cwd, ['copy', `images:${tag}`, `layout-${tag}`])
    await succeed(cwd, ['copy', `images:${tag}`, `${tag}.tar`])
  }
  return cwd
}

async function succeed(cwd: string, args: readonly string[]): Promise<string> {
  const { code, stdout, stderr } = await koci(args, { cwd })
  if (code !== 0) throw new Error(`${args.join(' ')}: ${stderr}`)
  return stdout
}

const cwd = await setUp(t)

await t.test(
  'skopeo copies each, from a layout and an archive',
  { skip: missing('skopeo') },
  async t => {
    for (const tag of Object.keys(made)) {
      const stat = JSON.parse(await succeed(cwd, ['stat', '--json', `--image=images:${tag}`]))
      const { digest } = stat.manifest.descriptor
      for (const [at, image] of [
        `oci:${cwd}/layout-${tag}:${tag}`,
        `oci-archive:${cwd}/${tag}.tar:${tag}`,
      ].entries()) {
        t.equal(JSON.parse(run('skopeo', ['inspect', image])).Digest, digest, image)
        run('skopeo', ['--insecure-policy', 'copy', '-q', image, `dir:${cwd}/${tag}.${at}`])
      }
    }
  },
)

await t.test(
  'oci-image-tool finds nothing to object to',
  { skip: missing('oci-image-tool') },
  async t => {
    for (const tag of Object.keys(made)) {
      // what it was written before, it doesn't know
      if (tag === 'zstd') continue
      const layout = path.join(cwd, `layout-${tag}`)
      const args = ['validate', '--type=image', '--ref', `name=${tag}`, layout]
      t.match(finish('oci-image-tool', args), { status: 0, stderr: '' }, tag)
    }
  },
)

await t.test(
  'umoci unpacks the same tree from one layer',
  { skip: missing('umoci') },
  async t => {
    for (const tag of ['flattened', 'upper']) {
      const [ours, theirs] = [path.join(cwd, `ours-${tag}`), path.join(cwd, `theirs-${tag}`)]
      await succeed(cwd, ['unpack', ...rootless, '--image=images:base', ours])
      run('umoci', ['unpack', ...rootless, '--image', `${cwd}/images:${tag}`, theirs])
      const options = { directoryTimes: false }
      t.same(describeTree(`${theirs}/rootfs`, options), describeTree(`${ours}/rootfs`, options))
    }
  },
)

await t.test('buildah begins with each', { skip: buildahMissing() }, async t => {
  const policy = ['--signature-policy', path.join(cwd, 'policy.json')]
  writeFileSync(
    path.join(cwd, 'policy.json'),
    '{"default":[{"type":"insecureAcceptAnything"}]}',
  )
  for (const tag of ['flattened', 'zstd', 'inserted']) {
    const name = buildah('from', ...policy, `oci:layout-${tag}:${tag}`).trim()
    t.not(name, '')
    const mounted = buildah('mount', name).trim()
    t.equal(readFileSync(`${mounted}/etc/passwd`, 'utf8'), 'another\n')
    if (tag === 'inserted') t.same(readdirSync(`${mounted}/new`), ['file'])
    buildah('umount', name)
    buildah('rm', name)
  }
})

function buildahMissing(): false | string {
  if (!isRoot) return 'needs root: mounts'
  return missing('buildah')
}

/** With a store of the test's own, which needs no overlay. */
function buildah(...args: string[]): string {
  const store = [
    '--root',
    `${cwd}/storage`,
    '--runroot',
    `${cwd}/run`,
    '--storage-driver',
    'vfs',
  ]
  // the path becomes a name, for which only small letters will do
  return run('buildah', [...store, ...args], { cwd })
}
