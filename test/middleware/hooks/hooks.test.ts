// Each hook, run as a script, through whole runs.
import { execFileSync } from 'node:child_process'
import { existsSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { Ajv2020 } from 'ajv/dist/2020.js'
import t, { type Test } from 'tap'
import { hooks, Koci, listDelta, mtree } from '../../../middleware/index.ts'
import { hookPlace, hookTable, type HookPlace } from '../../support/hooks.ts'
import { makeImage, type TestLayer } from '../../support/image.ts'
import { dir, file } from '../../support/members.ts'
import { ownTmpdir } from '../../support/own-tmpdir.ts'

const rootless = process.geteuid?.() !== 0
const schemas = path.resolve(import.meta.dirname, '../../../docs/schemas')

interface Scene extends HookPlace {
  readonly layout: string
  readonly image: string
  readonly bundle: string
  app(toml: string): Koci
}

async function scene(
  t: Test,
  layers: readonly TestLayer[] = [[file('a', 'one')], [file('b', 'two')]],
): Promise<Scene> {
  const place = hookPlace(t)
  const { base } = place
  const layout = path.join(base, 'images')
  const image = await makeImage(layout, 'a', {
    layers,
    config: { Labels: { '--evil': '$(id)' } },
  })
  const app = (toml: string): Koci => new Koci().use(hooks({ file: place.file(toml) }))
  return { ...place, layout, image, bundle: path.join(base, 'bundle'), app }
}

const lines = (file: string): string[] => readFileSync(file, 'utf8').trimEnd().split('\n')

await t.test('commands get words, and run in the order of the file', async t => {
  const s = await scene(t)
  const tables = ['try-skip', 'pre-extract', 'post-extract'].flatMap(name =>
    ['one', 'two'].map(word => {
      const end = name === 'try-skip' ? 'exit 77' : ''
      const script = s.script(`${name}-${word}`, `echo "$*" >> ${s.base}/log; ${end}`)
      return hookTable(`unpack.ociv1.layer.${name}`, [script, word])
    }),
  )
  const app = s.app(tables.join(''))
  const { layers } = await app.unpack({ image: s.image, bundle: s.bundle, rootless })
  const order = (name: string, index: number): string[] => {
    const layer = layers[index]
    const words = [layer?.digest, layer?.diffID, layer?.chainID, index].join(' ')
    const rest = `${s.bundle} ${s.bundle}/rootfs ${words}`
    return ['one', 'two'].map(word => `${word} unpack.ociv1.layer.${name} ${rest}`)
  }
  t.same(lines(`${s.base}/log`), [
    ...order('try-skip', 0),
    ...order('try-skip', 1),
    ...order('pre-extract', 0),
    ...order('post-extract', 0),
    ...order('pre-extract', 1),
    ...order('post-extract', 1),
  ])
  t.ok(existsSync(path.join(s.bundle, 'hooks')), 'a directory of its own')
})

await t.test('a layer that try-skip finds is not extracted', async t => {
  for (const parallel of [false, true])
    await t.test(`parallel: ${parallel}`, async t => {
      const s = await scene(t)
      const script = s.script(
        'skip',
        `[ "$7" = 0 ] || exit 77
         echo found > "$3/by-script"
         echo '{"version":1,"rootfs":true,"verified":true}'`,
      )
      const toml = hookTable('unpack.ociv1.layer.try-skip', script, `parallel = ${parallel}`)
      const { layers } = await s
        .app(toml)
        .unpack({ image: s.image, bundle: s.bundle, rootless })
      t.match(layers[0]?.placed, { by: 'hooks', verified: true })
      t.match(layers[1]?.placed, { by: 'koci', verified: true })
      t.same(readdirSync(`${s.bundle}/rootfs`).sort(), ['b', 'by-script'])
    })
})

await t.test('layers are looked up at the same time only if the file says so', async t => {
  const layers = Array.from({ length: 4 }, (_, at) => [file(`f${at}`)])
  for (const parallel of [false, true]) {
    const s = await scene(t, layers)
    // each waits for all others to have come; one after the other, only the last one sees them
    const script = s.script(
      'skip',
      `touch "${s.base}/here.$7"
       for i in $(seq 100); do
         [ "$(ls ${s.base} | grep -c '^here')" = 4 ] && { touch "${s.base}/met.$7"; break; }
         [ ${parallel} = false ] && break
         sleep 0.2
       done
       exit 77`,
    )
    const toml = hookTable('unpack.ociv1.layer.try-skip', script, `parallel = ${parallel}`)
    await s.app(toml).unpack({ image: s.image, bundle: s.bundle, rootless })
    const met = readdirSync(s.base).filter(name => name.startsWith('met.'))
    t.equal(met.length, parallel ? 4 : 1)
  }
})

await t.test('runtime-config rewrites config.json', async t => {
  const s = await scene(t)
  const script = s.script(
    'config',
    `sed 's/.*"runtimeConfig":/{"version":1,"runtimeConfig":/; s/"hostname":"[^"]*"/"hostname":"scripted"/'`,
  )
  const quiet = s.script('quiet', 'cat > /dev/null')
  const toml =
    hookTable('unpack.ociv1.runtime-config', script) +
    hookTable('unpack.ociv1.runtime-config', quiet)
  const result = await s.app(toml).unpack({ image: s.image, bundle: s.bundle, rootless })
  t.equal(result.runtimeConfig.hostname, 'scripted')
  t.match(readFileSync(`${s.bundle}/config.json`, 'utf8'), /"hostname": "scripted"/)
})

await t.test('mount, post-extract and unmount decorate merged layers', async t => {
  const s = await scene(t)
  const script = s.script('log', `echo "$1" >> ${s.base}/trace; ls "$3" >> ${s.base}/trace`)
  const toml = ['rootfs.mount', 'rootfs.unmount', 'layer.post-extract']
    .map(name => hookTable(`unpack.ociv1.${name}`, script))
    .join('')
  await s.app(toml).unpack({ image: s.image, bundle: s.bundle, rootless })
  const [post, mount] = ['unpack.ociv1.layer.post-extract', 'unpack.ociv1.rootfs.mount']
  t.same(lines(`${s.base}/trace`), [post, 'a', post, 'a', 'b', mount, 'a', 'b'])
})

await t.test(
  'unmount is run when an unpack fails after mount, though it was aborted',
  async t => {
    const s = await scene(t)
    const log = s.script('log', `echo "$1" >> ${s.base}/trace`)
    const toml =
      hookTable('unpack.ociv1.rootfs.mount', log) +
      hookTable('unpack.ociv1.rootfs.unmount', log) +
      hookTable('unpack.ociv1.runtime-config', s.script('fail', 'exit 1'))
    const unpack = s.app(toml).unpack({ image: s.image, bundle: s.bundle, rootless })
    await t.rejects(unpack, { code: 'ERR_KOCI_HOOK_FAILED' })
    t.same(lines(`${s.base}/trace`), [
      'unpack.ociv1.rootfs.mount',
      'unpack.ociv1.rootfs.unmount',
    ])
    t.notOk(existsSync(s.bundle))
  },
)

/** An unpacked bundle with mtree, of which a script lists changes. */
async function changed(
  t: Test,
  body: string,
  rest = '',
): Promise<Scene & { app2: Koci; list: () => Promise<string[]> }> {
  const s = await scene(t, [[dir('d'), file('d/x'), file('d/y'), file('e')]])
  await new Koci().use(mtree()).unpack({ image: s.image, bundle: s.bundle, rootless })
  const toml = hookTable('repack.ociv1.layer.delta-list', s.script('list', body), rest)
  const app2 = s.app(toml).use(mtree())
  const list = async (): Promise<string[]> =>
    (await listDelta(app2, { bundle: s.bundle })).map(({ kind, path }) => `${kind} ${path}`)
  return { ...s, app2, list }
}

await t.test(
  'delta-list: what is there was added or modified, what is not was deleted',
  async t => {
    const s = await changed(
      t,
      `printf '%s\\0' d/x ./e/ d/y new 'odd name
with a line feed' gone/far/below x-link/below .`,
    )
    const rootfs = path.join(s.bundle, 'rootfs')
    execFileSync('/bin/rm', [`${rootfs}/d/y`])
    writeFileSync(`${rootfs}/new`, 'new')
    writeFileSync(`${rootfs}/odd name\nwith a line feed`, 'odd')
    symlinkSync('d', `${rootfs}/x-link`)
    const listed = await s.list()
    for (const path of ['new', 'odd name\nwith a line feed', 'x-link'])
      t.ok(
        listed.some(line => /^[AM] /.test(line) && line.slice(2) === path),
        path,
      )
    t.ok(listed.includes('D d/y'))
    t.notOk(
      listed.some(line => /below/.test(line)),
      'what a link leads to is not looked at',
    )
  },
)

await t.test(
  'delta-list is asked in order, may decline, and mtree() is asked at last',
  async t => {
    const s = await changed(t, 'exit 77')
    writeFileSync(`${s.bundle}/rootfs/new`, '')
    t.ok((await s.list()).includes('A new'))
  },
)

await t.test('a delta-list that fails aborts, unless a fallback is wanted', async t => {
  const body = `echo one >&2; printf 'tab\\there\\n' >&2; printf 'e\\0'; exit 3`
  const strict = await changed(t, body)
  await t.rejects(strict.list(), {
    code: 'ERR_KOCI_HOOK_FAILED',
    message: /list: repack\.ociv1\.layer\.delta-list exited with status 3: one; tab\\there$/,
    details: { status: 3 },
  })
  await t.rejects(strict.app2.repack({ image: `${strict.layout}:b`, bundle: strict.bundle }), {
    code: 'ERR_KOCI_HOOK_FAILED',
  })
  const lenient = await changed(t, body, 'fallback = true')
  const warnings: string[] = []
  lenient.app2.on('warning', ({ data }) => void warnings.push(data.code))
  writeFileSync(`${lenient.bundle}/rootfs/new`, '')
  t.ok((await lenient.list()).includes('A new'))
  t.has(warnings, ['HOOK_FALLBACK'])
})

await t.test(
  'names that lead elsewhere, or are no list, are refused before anything is packed',
  async t => {
    const cases: [printed: string, reason: RegExp][] = [
      ['../x\\0', /"\.\." leads out/],
      ['d/../../x\\0', /"\.\." leads out/],
      ['/etc/passwd\\0', /paths are relative to the rootfs/],
      ['e\\0d/x', /d\/x: NUL expected after it/],
      ['/opaque:d\\0', /only stacked layers/],
    ]
    for (const [printed, message] of cases) {
      const s = await changed(t, `printf '${printed}'`)
      await t.rejects(s.list(), { code: 'ERR_KOCI_INVALID_REPLY', message }, printed)
      const lenient = await changed(t, `printf '${printed}'`, 'fallback = true')
      await t.resolves(lenient.list(), 'the fallback is asked')
    }
  },
)

await t.test(
  'a repack packs what a script lists, and refresh-bundle is told what was packed',
  async t => {
    const s = await scene(t)
    await new Koci().use(mtree()).unpack({ image: s.image, bundle: s.bundle, rootless })
    const list = s.script('list', `printf 'new\\0a\\0'`)
    const refresh = s.script(
      'refresh',
      `cat > ${s.base}/document
     list=$(sed 's/.*"list":"\\([^"]*\\)".*/\\1/' ${s.base}/document)
     tr '\\0' '\\n' < "$list" > ${s.base}/packed; echo "$list" > ${s.base}/where`,
    )
    const toml =
      hookTable('repack.ociv1.layer.delta-list', list) +
      hookTable('repack.ociv1.layer.refresh-bundle', refresh)
    writeFileSync(`${s.bundle}/rootfs/new`, 'new')
    execFileSync('/bin/rm', [`${s.bundle}/rootfs/a`])
    const { image } = await s
      .app(toml)
      .use(mtree())
      .repack({ image: `${s.layout}:b`, bundle: s.bundle, refresh: true })
    t.same(
      lines(`${s.base}/packed`).map(line => line.slice(2)),
      ['a', 'new'],
    )
    t.notOk(existsSync(lines(`${s.base}/where`)[0] ?? ''), 'the list is gone')
    const { committed, packed } = JSON.parse(readFileSync(`${s.base}/document`, 'utf8'))
    t.equal(committed.descriptor.digest, image.descriptor.digest)
    t.equal(committed.layers.length, 3)
    t.equal(packed.count, 2)
  },
)

await t.test(
  'a layer in a directory of its own: target, dialect, and where it went',
  async t => {
    const s = await scene(t)
    const stage = s.script(
      'stage',
      `mkdir -p ${s.base}/stage.$7; echo '{"version":1,"target":"${s.base}/stage.'$7'"}'`,
    )
    const store = s.script(
      'store',
      `mv ${s.base}/stage.$7 ${s.base}/store.$7; echo '{"version":1,"dir":"${s.base}/store.'$7'"}'`,
    )
    const mount = s.script('mount', `cat > ${s.base}/document; echo asked >> ${s.base}/mounts`)
    const toml =
      'layering = "stacked"\ndialect = "overlay-user"\n' +
      hookTable('unpack.ociv1.layer.pre-extract', stage) +
      hookTable('unpack.ociv1.layer.post-extract', store) +
      hookTable('unpack.ociv1.rootfs.mount', mount)
    const unpack = s.app(toml).unpack({ image: s.image, bundle: s.bundle, rootless })
    await t.rejects(unpack, {
      code: 'ERR_KOCI_MOUNT_FAILED',
      message: /nothing is mounted there/,
    })
    t.notOk(existsSync(s.bundle), 'nothing of the bundle remains')
    const document = JSON.parse(readFileSync(`${s.base}/document`, 'utf8'))
    t.same(
      document.layers.map((layer: { dir: string }) => layer.dir),
      [`${s.base}/store.0`, `${s.base}/store.1`],
    )
    t.same(document.extraction.layering, 'stacked')
    t.same(document.config.config.Labels, { '--evil': '$(id)' })
    t.same(readdirSync(`${s.base}/store.1`), ['b'])
  },
)

await t.test('replies that do not fit are errors', async t => {
  const cases: [hook: string, reply: string, reason: RegExp][] = [
    ['layer.try-skip', '', /either dir or rootfs/],
    ['layer.try-skip', '{"version":1}', /either dir or rootfs/],
    [
      'layer.try-skip',
      '{"version":1,"dir":"/nonexistent"}',
      /dir \/nonexistent is not a directory/,
    ],
    ['layer.try-skip', '{"version":1,"dir":"relative"}', /its dir is not an absolute path/],
    ['layer.try-skip', '{"version":1,"rootfs":false}', /its rootfs is not true/],
    [
      'layer.try-skip',
      '{"version":1,"rootfs":true,"verified":"yes"}',
      /verified is not true or/,
    ],
    [
      'layer.try-skip',
      '{"version":1,"rootfs":true,"report":{"entries":-1,"bytes":0}}',
      /report/,
    ],
    ['layer.try-skip', '{"version":1,"rootfs":true,"report":7}', /its report is not/],
    ['layer.pre-extract', '{"version":1,"dir":"/"}', /it has dir, .* target, dialect/],
    ['layer.pre-extract', '{"version":1,"target":"/"}', /its target \/ is not empty/],
    ['layer.pre-extract', '{"version":1,"dialect":"aufs"}', /its dialect is not plain/],
    ['layer.post-extract', '{"version":1,"dir":"/tmp"}', /the layer is in the rootfs/],
    ['rootfs.mount', '{"version":1,"dir":"/"}', /nothing but version/],
    ['runtime-config', '{"version":1,"runtimeConfig":{}}', /ociVersion/],
  ]
  const s = await scene(t)
  for (const [hook, reply, message] of cases) {
    const toml = hookTable(`unpack.ociv1.${hook}`, s.script('reply', `echo '${reply}'`))
    await t.rejects(
      s.app(toml).unpack({ image: s.image, bundle: s.bundle, rootless }),
      { code: 'ERR_KOCI_INVALID_REPLY', message },
      `${hook}: ${reply}`,
    )
    t.notOk(existsSync(s.bundle))
  }
})

await t.test('H08: a hook that puts a link in the place of the rootfs', async t => {
  const s = await scene(t)
  const victim = path.join(s.base, 'victim')
  const body = `rm -rf "$3"; mkdir -p ${victim}; echo kept > ${victim}/a; ln -s ${victim} "$3"`
  const script = s.script('swap', `${body}; exit $\{STATUS:-0}`)
  for (const hook of ['layer.pre-extract', 'layer.post-extract', 'runtime-config'])
    await t.test(hook, async t => {
      const app = s.app(hookTable(`unpack.ociv1.${hook}`, script))
      const unpack = app.unpack({ image: s.image, bundle: s.bundle, rootless })
      await t.rejects(unpack, {
        code: 'ERR_KOCI_INVALID_BUNDLE',
        message: /no directory any more/,
      })
      t.same(readdirSync(victim), ['a'])
      t.same(lines(`${victim}/a`), ['kept'])
      t.notOk(existsSync(s.bundle))
    })
  await t.test('delta-list', async t => {
    await new Koci().use(mtree()).unpack({ image: s.image, bundle: s.bundle, rootless })
    const app = s.app(hookTable('repack.ociv1.layer.delta-list', script))
    const repack = app.repack({ image: `${s.layout}:b`, bundle: s.bundle })
    await t.rejects(repack, { code: 'ERR_KOCI_INVALID_BUNDLE' })
  })
})

await t.test(
  'H09: nothing that an image says is run, or can be taken for an option',
  async t => {
    const s = hookPlace(t)
    const evil = s.script('evil', `touch ${s.base}/run`)
    const texts = [evil, `$(${evil})`, `\`${evil}\``, `;${evil};`, `--${evil}`, `-c ${evil}`]
    const image = await makeImage(path.join(s.base, 'images'), 'a', {
      layers: [[file('-rf', 'x'), file(`$(touch x)`, 'y')]],
      config: {
        Labels: Object.fromEntries(texts.map((text, at) => [`${text}${at}`, text])),
        Entrypoint: texts,
        Env: [`PATH=${s.base}`, `LD_PRELOAD=${evil}`, 'KOCI_HOOK=x'],
        WorkingDir: evil,
        User: '0',
      },
    })
    const names = [
      'layer.try-skip',
      'layer.pre-extract',
      'layer.post-extract',
      'runtime-config',
    ]
    const script = s.script(
      'log',
      `for word; do echo "$word" >> ${s.base}/words; done
     env | grep -c -e '^LD_PRELOAD=' -e '${s.base}' >> ${s.base}/environment
     [ "$1" = unpack.ociv1.layer.try-skip ] && exit 77; exit 0`,
    )
    const toml = names.map(name => hookTable(`unpack.ociv1.${name}`, script)).join('')
    const app = new Koci().use(hooks({ file: s.file(toml) }))
    await app.unpack({ image, bundle: `${s.base}/bundle`, rootless })
    t.notOk(existsSync(`${s.base}/run`))
    t.ok(
      lines(`${s.base}/words`).every(word => /^(unpack\.ociv1\.|\/|sha256:|\d+$)/.test(word)),
    )
    t.same([...new Set(lines(`${s.base}/environment`))], ['0'])
  },
)

await t.test('what hooks are told and answer is in the published schemas', async t => {
  const read = (name: string): Record<string, unknown> =>
    JSON.parse(readFileSync(path.join(schemas, name), 'utf8'))
  const ajv = new Ajv2020({ allErrors: true, strict: true })
  ajv.addSchema(read('hook-reply.v1.json'))
  const isInput = ajv.compile(read('hook-input.v1.json'))
  const isReply = ajv.getSchema('hook-reply.v1.json')
  const s = await scene(t)
  const script = s.script(
    'keep',
    `cat > ${s.base}/doc.$1$7; [ "$1" = "$X" ] && exit 77; exit 0`,
  )
  const decline = s.script('decline', `cat > ${s.base}/doc.$1$7; exit 77`)
  const unpacks = ['layer.pre-extract', 'layer.post-extract', 'rootfs.mount', 'runtime-config']
  const toml =
    hookTable('unpack.ociv1.layer.try-skip', decline) +
    hookTable('repack.ociv1.layer.delta-list', decline) +
    hookTable('repack.ociv1.layer.refresh-bundle', script) +
    unpacks.map(name => hookTable(`unpack.ociv1.${name}`, script)).join('')
  const app = s.app(toml).use(mtree())
  await app.unpack({ image: s.image, bundle: s.bundle, rootless })
  writeFileSync(`${s.bundle}/rootfs/new`, '')
  await app.repack({ image: `${s.layout}:b`, bundle: s.bundle, refresh: true })
  const documents = readdirSync(s.base).filter(name => name.startsWith('doc.'))
  t.equal(documents.length, 10)
  for (const name of documents) {
    const document = JSON.parse(readFileSync(path.join(s.base, name), 'utf8'))
    t.ok(isInput(document), `${name}: ${ajv.errorsText(isInput.errors)}`)
    t.ok(name.startsWith(`doc.${document.hook}`))
    for (const { report } of document.layers)
      if (report !== undefined) t.ok(isReply?.({ version: 1, rootfs: true, report }))
  }
  t.notOk(isReply?.({ rootfs: true }))
})

await t.test('a long list is read from disk, piece by piece', async t => {
  const s = await changed(t, `seq -f 'd/%.0f' 1 50000 | tr '\\n' '\\0'; printf 'e\\0'`)
  writeFileSync(`${s.bundle}/rootfs/e`, 'changed')
  await t.test('and nothing of it is left', async t => {
    const temporary = ownTmpdir(t)
    t.same(await s.list(), ['M e'])
    t.same(readdirSync(temporary), [])
  })
})
