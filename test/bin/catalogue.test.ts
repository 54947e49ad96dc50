// Every row of the catalogue of errors that scripts for umoci may meet: the exit status, a message that says at least as much,
// and nothing changed on disk.
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import t from 'tap'
import { toArguments } from '../differential/compare-lines.ts'
import { copyFixture, makeFixture } from '../differential/fixture.ts'
import { untouched } from '../differential/observe.ts'
import { temporary } from '../support/peers.ts'
import { koci, several } from './run-koci.ts'

const unpack = 'unpack ROOTLESS --image'

/** Changes a file of the bundle. */
function edit(name: RegExp, change: (text: string) => string | undefined) {
  return (cwd: string): void => {
    const bundle = path.join(cwd, 'b')
    for (const found of readdirSync(bundle).filter(each => name.test(each))) {
      const file = path.join(bundle, found)
      const text = change(readFileSync(file, 'utf8'))
      if (text === undefined) rmSync(file)
      else writeFileSync(file, text)
    }
  }
}

const repack = 'repack --image images:new b'
const umociJson = /^umoci\.json$/

/** What goes wrong, in a copy of the fixture in which `b` is a bundle if `prepare` is given; what is said. */
const cases: [line: string, message: RegExp, prepare?: (cwd: string) => void][] = [
  ['ls --layout nowhere', /nowhere: not an OCI image layout: no such file/],
  ['ls --layout src', /src: not an OCI image layout: .*oci-layout/],
  ['ls --layout broken', /broken: not an OCI image layout: .*oci-layout/],
  ['ls --layout futuristic', /futuristic.*: version 2\.0\.0 is not supported/],
  ['ls --layout noblobs', /noblobs: not an OCI image layout: .*blobs/],
  ['ls --layout noindex', /noindex: not an OCI image layout: .*index\.json/],
  ['ls --layout dirindex', /dirindex.*: .*index\.json/],
  ['ls --layout badindex', /badindex.*: invalid JSON/],
  ['init --layout images', /images: already exists/],
  ['init --layout file', /file: already exists/],
  [
    'new --image images:.T',
    /images:\.T: invalid reference: the tag contains invalid characters/,
  ],
  ['config --image images:base --tag .T', /--tag \.T: .*the tag contains invalid characters/],
  ['config --image images:base --tag _', /--tag .*: the tag is empty/],
  ['tag --image images:base a//b', /a\/\/b: .*the tag contains invalid characters/],
  ['ls --layout a:b', /--layout: path contains ':' character: a:b/],
  ['ls --layout images x', /invalid number of arguments: expected no arguments, found x/],
  [`${unpack} images:base`, /invalid number of arguments: expected <bundle>, found nothing/],
  ['insert --image images:base x', /expected <source> <target>, found x/],
  ['insert --image images:base --whiteout x y', /expected <target>, found x y/],
  ['stat --image images:T', /tag T: tag not found in images - it has base, latest/],
  [
    'stat --image images:lastest',
    /tag lastest: tag not found in images - did you mean latest\?/,
  ],
  [`${unpack} images:T c`, /tag T: tag not found in images/],
  ['stat --image images:twice', /tag twice: ambiguous: it is the name of sha256:.*, sha256:/],
  [
    `${unpack} images:base b`,
    /b\/config\.json: already exists - unpack into another/,
    () => {},
  ],
  [
    `${unpack} images:base b`,
    /b\/rootfs: already exists/,
    edit(/^(config|umoci|koci)\.json$|mtree|stat$/, () => undefined),
  ],
  [`${unpack} bad:climbing c`, /\.\.\/x: path leaves the root/],
  [`${unpack} bad:wrongid c`, /diffID mismatch: found sha256:\w+, expected sha256:/],
  [`${unpack} bad:corrupt c`, /sha256:\w+.*: digest mismatch|malformed gzip data/],
  [`${unpack} bad:foreign c`, /media type application\/x-foreign is not supported/],
  [`${unpack} bad:lz4 c`, /media type .*tar\+lz4 is not supported/],
  [`${unpack} bad:nolayers c`, /invalid image config: 0 diff_ids for 1 layers/],
  [`${unpack} images:baduser c`, /nobody-knows: no such user in the rootfs/],
  [repack, /b: not a usable bundle: it has no umoci\.json/, edit(umociJson, () => undefined)],
  [repack, /umoci\.json: invalid JSON/, edit(umociJson, () => '{')],
  [
    repack,
    /umoci\.json: version 9 is not supported/,
    edit(umociJson, text => text.replace('"umoci_version":"2"', '"umoci_version":"9"')),
  ],
  [repack, /nobody in the chain can list changes/, edit(/\.mtree$|\.stat$/, () => undefined)],
  [
    repack,
    /\.mtree: invalid mtree manifest at line/,
    cwd => {
      edit(/\.stat$/, () => undefined)(cwd)
      edit(/\.mtree$/, () => 'nonsense\n')(cwd)
    },
  ],
  [
    repack,
    /\.wh\.x: invalid whiteout/,
    cwd => writeFileSync(path.join(cwd, 'b/rootfs/.wh.x'), ''),
  ],
  ['insert --image images:base hidden x', /x\/\.wh\.x: invalid whiteout/],
  [`${repack} --history.created noon`, /--history\.created: noon is not an RFC 3339 time/],
  ['config --image images:base --created noon', /--created: noon is not an RFC 3339 time/],
  ['insert --image images:base --compress xz src x', /--compress: xz is not one of auto, none/],
  [`${unpack} images:base --uid-map 1:2:x c`, /id map 1:2:x: expected container:host/],
  [`${unpack} images:base --gid-map 1 c`, /id map 1: expected container:host/],
]

await t.test('what goes wrong is told, and changes nothing', async t => {
  const base = temporary(t, 'catalogue')
  const fixture = path.join(base, 'fixture')
  await makeFixture(fixture)
  for (const name of ['noblobs', 'noindex', 'dirindex', 'badindex']) {
    mkdirSync(path.join(fixture, name))
    const version = JSON.stringify({ imageLayoutVersion: '1.0.0' })
    writeFileSync(path.join(fixture, name, 'oci-layout'), version)
    if (name !== 'noblobs')
      mkdirSync(path.join(fixture, name, 'blobs/sha256'), { recursive: true })
    if (name === 'dirindex') mkdirSync(path.join(fixture, name, 'index.json'))
    else if (name !== 'noindex') writeFileSync(path.join(fixture, name, 'index.json'), '{')
  }
  const withBundle = path.join(base, 'with-bundle')
  copyFixture(fixture, withBundle)
  const first = await koci(toArguments(`${unpack} images:base b`), { cwd: withBundle })
  t.equal(first.code, 0, first.stderr)

  await several([...cases.entries()], async ([at, [line, message, prepare]]) => {
    const cwd = path.join(base, String(at))
    copyFixture(prepare ? withBundle : fixture, cwd)
    prepare?.(cwd)
    const before = withoutIndex(cwd)
    const { code, stdout, stderr } = await koci(toArguments(line), { cwd })
    t.equal(code, 1, line)
    t.equal(stdout, '', line)
    t.match(stderr, message, line)
    t.match(stderr, /^koci: [^\n]*\[ERR_KOCI_\w+\]\n/, line)
    t.same(withoutIndex(cwd), before, `${line}: nothing was changed`)
  })
})

await t.test('a malformed SOURCE_DATE_EPOCH is an error wherever a time is made', async t => {
  const base = temporary(t, 'catalogue')
  const cwd = path.join(base, 'fixture')
  await makeFixture(cwd)
  const before = untouched(cwd)
  const env = { SOURCE_DATE_EPOCH: '12.5' }
  const lines = [
    'new --image images:x',
    'config --image images:base --config.user me',
    'insert --image images:base src x',
    'raw add-layer --image images:base layer.tar',
  ]
  await several(lines, async line => {
    const { code, stderr } = await koci(line.split(' '), { cwd, env })
    t.equal(code, 1, line)
    t.match(stderr, /^koci: SOURCE_DATE_EPOCH: "12\.5" is not a number of seconds/, line)
  })
  t.same(untouched(cwd), before)
})

/** The index beside a record only spares work, and a comparison brings it up to date. */
function withoutIndex(cwd: string): string[] {
  return untouched(cwd).filter(line => !/^b\/\w+\.stat /.test(line))
}
