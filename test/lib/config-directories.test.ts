// Where files that decide what code runs are looked for: the user's directory, the system's, and nowhere else.
import { mkdirSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import t from 'tap'
import { findConfigFile } from '../../lib/config-directories.ts'

await t.test("the user's file counts, else the system's, never one from elsewhere", async t => {
  const base = t.testdir()
  const make = (file: string): string => {
    mkdirSync(path.dirname(file), { recursive: true })
    writeFileSync(file, '')
    return file
  }
  const env = { HOME: `${base}/home`, XDG_CONFIG_HOME: `${base}/xdg` }
  const find = (env: NodeJS.ProcessEnv, system = `${base}/etc`): string | undefined =>
    findConfigFile(['one', 'two'], env, system)
  t.equal(find(env), undefined)
  const system = make(`${base}/etc/one`)
  t.equal(find(env), system)
  const own = make(`${base}/home/.config/koci/two`)
  t.equal(find(env), system)
  t.equal(find({ HOME: env.HOME }), own)
  t.equal(find({ ...env, XDG_CONFIG_HOME: 'relative' }), own)
  t.equal(find({ ...env, XDG_CONFIG_HOME: '' }), own)
  const second = make(`${base}/xdg/koci/two`)
  t.equal(find(env), second)
  const first = make(`${base}/xdg/koci/one`)
  t.equal(find(env), first, 'names count in their order')
  t.equal(find({ HOME: '' }, '/nonexistent'), undefined)
})
