// The commands that add layers, beside umoci.
import t from 'tap'
import { isRoot, umociMissing } from '../support/peers.ts'
import { compareLines } from './compare-lines.ts'

const commands = ['insert', 'raw add-layer']

await t.test('koci does what umoci does', { skip: umociMissing(!isRoot) }, t =>
  compareLines(t, commands),
)
