import t from 'tap'
import {
  formatPlatform,
  hostPlatform,
  matches,
  matchRank,
  parsePlatform,
} from '../../../lib/oci/platform.ts'

await t.test('Parses os/architecture[/variant], and other names of architectures', async t => {
  t.same(parsePlatform('linux/amd64'), { os: 'linux', architecture: 'amd64' })
  t.same(parsePlatform('linux/arm64/v8'), { os: 'linux', architecture: 'arm64', variant: 'v8' })
  t.same(parsePlatform('Linux/X86_64'), { os: 'linux', architecture: 'amd64' })
  t.same(parsePlatform('linux/armhf'), { os: 'linux', architecture: 'arm', variant: 'v7' })
  t.same(parsePlatform('linux/constructor'), { os: 'linux', architecture: 'constructor' })
  for (const bad of [
    '',
    'linux',
    'linux/',
    '/amd64',
    'a/b/c/d',
    'a b/c',
    `linux/${'x'.repeat(99)}`,
  ])
    t.throws(() => parsePlatform(bad), { code: 'ERR_KOCI_INVALID_OPTION' }, bad)
})

const cases: Array<[wanted: string, offered: string, fits: boolean]> = [
  ['linux/amd64', 'linux/amd64', true],
  ['linux/amd64', 'linux/arm64', false],
  ['linux/amd64', 'windows/amd64', false],
  ['linux/arm64', 'linux/arm64/v8', true],
  ['linux/arm64/v8', 'linux/arm64', true],
  ['linux/arm64', 'linux/arm64/v9', false],
  ['linux/arm64/v9', 'linux/arm64/v8', true],
  ['linux/arm', 'linux/arm/v7', true],
  ['linux/arm/v7', 'linux/arm/v6', true],
  ['linux/arm/v6', 'linux/arm/v7', false],
  ['linux/arm/v6', 'linux/arm', true],
  ['linux/amd64', 'linux/amd64/v1', true],
  ['linux/amd64', 'linux/amd64/v3', false],
  ['linux/amd64/v3', 'linux/amd64/v2', true],
  ['linux/ppc64le', 'linux/ppc64le', true],
  ['linux/mips/x', 'linux/mips/y', false],
  ['linux/mips/x', 'linux/mips/x', true],
]
for (const [wanted, offered, fits] of cases)
  await t.test(`${offered} ${fits ? 'fits' : "doesn't fit"} ${wanted}`, async t => {
    t.equal(matches(parsePlatform(wanted), parsePlatform(offered)), fits)
  })

await t.test('A nearer variant ranks higher', async t => {
  const rank = (offered: string): number =>
    matchRank(parsePlatform('linux/arm/v7'), parsePlatform(offered)) ?? -1
  t.ok(rank('linux/arm/v7') > rank('linux/arm/v6'))
  t.ok(rank('linux/arm/v6') > rank('linux/arm'))
})

await t.test('os.version counts only if it is asked for', async t => {
  const offered = { os: 'windows', architecture: 'amd64', 'os.version': '10.0.1' }
  t.ok(matches({ os: 'windows', architecture: 'amd64' }, offered))
  t.ok(matches(offered, offered))
  t.notOk(matches({ ...offered, 'os.version': '10.0.2' }, offered))
  t.equal(formatPlatform(offered), 'windows/amd64 (10.0.1)')
  t.equal(formatPlatform({ os: '', architecture: '' }), 'unknown/unknown')
})

await t.test("The host's platform has Go's names", async t => {
  const names: Partial<Record<string, string>> = { x64: 'amd64', arm64: 'arm64', ia32: '386' }
  const host = hostPlatform()
  t.equal(host.os, process.platform)
  t.equal(host.architecture, names[process.arch] ?? host.architecture)
  t.equal('variant' in host, process.arch.startsWith('arm'))
  t.ok(matches(host, host))
})
