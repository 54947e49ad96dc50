// N: names and parents.
import t from 'tap'
import { hostile, type HostileCase } from '../support/hostile.ts'
import { file, link, dir } from '../support/members.ts'

const cases: HostileCase[] = [
  {
    id: 'N09',
    what: 'a parent that is a symlink to the outside',
    cli: true,
    layers: [[dir('canary'), link('out', '../../../../canary'), file('out/x')]],
    tree: ['canary dir', 'canary/x file', 'out link -> ../../../../canary'],
  },
  {
    id: 'N01',
    what: 'a name that climbs above the root',
    cli: true,
    layers: [[file('../../x\x1b')]],
    rejects: 'PATH_ESCAPE',
    says: String.raw`../../x\x1b`,
  },
  {
    id: 'N09',
    what: 'through an absolute symlink to a directory outside',
    layers: ({ canary }) => [[link('out', canary), file('out/x')]],
    tree: ['@base/canary dir', '@base/canary/x file', 'out link -> /@base/canary'],
  },
]
for (const each of cases) await hostile(t, each)
