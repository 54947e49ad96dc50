// Runs command lines by umoci and by koci under its name, on copies of the same files, and compares what they leave.
import { symlinkSync } from 'node:fs'
import path from 'node:path'
import type { Test } from 'tap'
import { build } from '../support/build.ts'
import { koci, several } from '../bin/run-koci.ts'
import { umoci } from '../bin/umoci.ts'
import { isRoot, temporary } from '../support/peers.ts'
import { rows, toLine, type Line } from './command-lines.ts'
import { copyFixture, makeFixture, steps } from './fixture.ts'
import { observe, untouched } from './observe.ts'

interface Left {
  readonly cwd: string
  readonly codes: readonly (number | null)[]
  readonly stdout: string
  readonly stderr: string
  /** What was there before the last line. */
  readonly before: readonly string[]
}

/**
 * Has both do the lines of these commands: the same exit status, and the same effect. What fails changes nothing. Of lines
 * that differ on purpose, only koci's exit status is compared.
 */
export async function compareLines(t: Test, commands: readonly string[]): Promise<void> {
  const base = temporary(t, 'lines')
  const fixture = path.join(base, 'fixture')
  await makeFixture(fixture)
  const called = path.join(base, 'umoci')
  // what is built starts in half the time
  symlinkSync(build(t.testdir()), called)

  const run = async (who: 'koci' | 'umoci', name: string, { text }: Line): Promise<Left> => {
    const cwd = path.join(base, name)
    copyFixture(fixture, cwd)
    const codes: (number | null)[] = []
    let end = { code: 0 as number | null, stdout: '', stderr: '' }
    let before: readonly string[] = []
    for (const words of text.split(' ; ')) {
      if (who === 'koci') before = untouched(cwd)
      const step = steps[words]
      if (step) step(cwd)
      else {
        const args = toArguments(words)
        end = await (who === 'umoci' ? umoci(args, { cwd }) : koci(args, { cwd, file: called }))
        codes.push(end.code)
      }
    }
    return { cwd, codes, stdout: end.stdout, stderr: end.stderr, before }
  }

  for (const command of commands)
    await t.test(command, async t => {
      const lines = (rows[command] ?? []).map(toLine)
      t.ok(lines.length > 0)
      await several([...lines.entries()], async ([at, line]) => {
        const name = `${command.replaceAll(' ', '-')}-${at}`
        const ours = await run('koci', `${name}-koci`, line)
        const code = ours.codes.at(-1)
        if (code !== 0)
          t.same(untouched(ours.cwd), ours.before, `${line.text}: nothing was changed`)
        if (line.differs !== undefined) {
          t.equal(code, line.code, `${line.text}: ${ours.stderr}`)
          return
        }
        const theirs = await run('umoci', `${name}-umoci`, line)
        t.same(ours.codes, theirs.codes, `${line.text}\n${ours.stderr}${theirs.stderr}`)
        if (code === 0) t.same(observe(ours, line.text), observe(theirs, line.text), line.text)
      })
    })
}

/** The words of a line: `_` is an empty one; what depends on who runs the tests is filled in. */
export function toArguments(words: string): string[] {
  const [uid = 0, gid = 0] = [process.geteuid?.(), process.getegid?.()]
  return words
    .split(' ')
    .flatMap(word => (word === 'ROOTLESS' ? (isRoot ? [] : ['--rootless']) : [word]))
    .map(word =>
      word === '_' ? '' : word.replace('OWNGROUP', String(gid)).replace('OWN', String(uid)),
    )
}
