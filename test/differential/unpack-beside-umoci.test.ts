// The commands that unpack, beside umoci.
import t from 'tap'
import { isRoot, umociMissing } from '../support/peers.ts'
import { compareLines } from './compare-lines.ts'

const commands = ['unpack', 'raw unpack']

await t.test('koci does what umoci does', { skip: umociMissing(!isRoot) }, t =>
  compareLines(t, commands),
)
