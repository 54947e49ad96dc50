// What a hooks file may say, where it is looked for, and what is wrong with one: file, line and key in every error.
import { chmodSync, existsSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import t from 'tap'
import { readHooksFile } from '../../../middleware/hooks/hooks-file.ts'
import { hooks } from '../../../middleware/hooks/index.ts'
import { hookPlace, hookTable } from '../../support/hooks.ts'

await t.test('a whole file', async t => {
  const place = hookPlace(t)
  const script = place.script('s', '')
  const file = place.file(`
layering = "stacked"
dialect = "overlay-user"
[unpack.ociv1.rootfs]
mount = [{ command = ["${script}", "a b", "$x"], timeout = 1.5 }, { command = ["${script}"] }]
[unpack.ociv1.layer.try-skip]
command = ["${script}"]
parallel = true
env = ["HOME", "_x1"]
[[repack.ociv1.layer.delta-list]]
command = ["${script}"]
fallback = true
`)
  const { chosen, commands } = readHooksFile(file)
  t.same(chosen, { layering: 'stacked', dialect: 'overlay-user' })
  t.match(commands['unpack.ociv1.rootfs.mount'], [
    { command: [script, 'a b', '$x'], timeoutMs: 1500, env: [], fallback: false },
    { command: [script], timeoutMs: 600_000 },
  ])
  t.match(commands['unpack.ociv1.layer.try-skip'], [{ parallel: true, env: ['HOME', '_x1'] }])
  t.match(commands['repack.ociv1.layer.delta-list'], [{ fallback: true }])
  t.same(Object.keys(commands).length, 3)
})

await t.test('what is wrong is said with its line', async t => {
  const place = hookPlace(t)
  const script = place.script('s', '')
  const skip = '[[unpack.ociv1.layer.try-skip]]\n'
  const good = `command = ["${script}"]\n`
  const cases: [text: string, line: number, message: RegExp][] = [
    ['a = ', 1, /Unspecified/i],
    ['\n\n"', 3, /line 3/],
    ['layering = "merged"\nlayering = "merged"', 2, /multiple times/],
    ['x = 1', 1, /x: unknown key - there are layering, dialect, unpack, repack/],
    ['\n[unpack.ociv1.layers]\nx = 1', 2, /unpack\.ociv1\.layers: unknown key - .*layer, root/],
    ['[unpack.ociv1.layer]\ntry-skp = 1', 2, /try-skp: unknown key - there are try-skip, pre-/],
    ['["unpack.ociv1.layer.try-skip"]', 1, /table|unknown|command: is missing/],
    [`unpack = 1`, 1, /unpack: a table was expected/],
    ['[unpack.ociv1]\nlayer = []', 2, /a table was expected/],
    ['layering = "both"', 1, /layering: is not one of merged, stacked/],
    ['\nlayering = "stacked"', 2, /stacked layers need a dialect/],
    ['dialect = "plain"', 1, /means nothing without layering/],
    ['layering = "merged"\ndialect = "overlay-user"', 1, /can only be plain/],
    [skip, 1, /try-skip\.command: is missing/],
    [`${skip}command = "${script}"`, 2, /command: has to be a list of texts/],
    [`${skip}command = []`, 2, /command: has to be a list/],
    [`${skip}command = ["s"]`, 2, /the first an absolute path/],
    [`${skip}command = ["./s"]`, 2, /the first an absolute path/],
    [`${skip}command = ["${script}", 1]`, 2, /has to be a list of texts/],
    [`${skip}command = ["${script}", "a\\u0000b"]`, 2, /has to be a list of texts/],
    [`${skip}command = ["${script}-not"]`, 2, /ENOENT/],
    [`${skip}${good}timeout = 0`, 3, /timeout: has to be a number of seconds/],
    [`${skip}${good}timeout = "1s"`, 3, /timeout: has to be a number of seconds/],
    [`${skip}${good}timeout = inf`, 3, /timeout: has to be a number of seconds/],
    [`${skip}${good}env = ["A=b"]`, 3, /env: has to be a list of names/],
    [`${skip}${good}fallback = true`, 3, /fallback: unknown key - there are command, timeout/],
    [`${skip}${good}parallel = 1`, 3, /parallel: has to be true or false/],
    [`${skip}${good}commands = 1`, 3, /commands: unknown key/],
    [`${skip}${good}command.x = 1`, 3, /Defining a key multiple times|already/],
  ]
  for (const [text, line, message] of cases) {
    const file = place.file(text)
    t.throws(
      () => hooks({ file }),
      { code: 'ERR_KOCI_INVALID_HOOKS', message, details: { subject: file, line } },
      text,
    )
  }
  writeFileSync(place.file(''), Buffer.from([0x23, 0xff]))
  t.throws(() => hooks({ file: path.join(place.base, 'hooks.toml') }), {
    code: 'ERR_KOCI_INVALID_HOOKS',
    message: /not valid UTF-8/,
  })
  t.throws(() => hooks({ file: path.join(place.base, 'none') }), { code: 'ERR_KOCI_IO' })
})

await t.test('a file or a command that others can write does not count', async t => {
  const place = hookPlace(t)
  const script = place.script('s', '')
  const file = place.file(hookTable('unpack.ociv1.layer.try-skip', script))
  hooks({ file })
  chmodSync(script, 0o775)
  t.throws(() => hooks({ file }), {
    code: 'ERR_KOCI_UNTRUSTED',
    message: /s can be written by its group/,
  })
  chmodSync(script, 0o755)
  chmodSync(file, 0o666)
  t.throws(() => hooks({ file }), { code: 'ERR_KOCI_UNTRUSTED' })
})

await t.test('without any file the driver says so when it is used', async t => {
  const { XDG_CONFIG_HOME: before } = process.env
  t.teardown(() => {
    if (before === undefined) delete process.env['XDG_CONFIG_HOME']
    else process.env['XDG_CONFIG_HOME'] = before
  })
  process.env['XDG_CONFIG_HOME'] = '/nonexistent'
  if (existsSync('/etc/koci/hooks.toml')) return
  const { unpack } = hooks()
  t.throws(() => unpack?.({} as never, async () => {}), {
    code: 'ERR_KOCI_INVALID_OPTION',
    message: /there is none/,
  })
})
