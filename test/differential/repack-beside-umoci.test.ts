// koci repack beside umoci's.
import t from 'tap'
import { isRoot, umociMissing } from '../support/peers.ts'
import { compareLines } from './compare-lines.ts'

const commands = ['repack']

await t.test('koci does what umoci does', { skip: umociMissing(!isRoot) }, t =>
  compareLines(t, commands),
)
