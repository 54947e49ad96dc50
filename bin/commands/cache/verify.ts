// koci cache verify: compares stored layers with what was recorded when they were stored.
import { createError } from '../../../lib/errors.ts'
import type { Verdict } from '../../../lib/stored-layers.ts'
import type { Command } from '../../command.ts'
import { dir, withStores } from './store.ts'

export const verify: Command = {
  positionals: [],
  options: {
    dir,
    repair: {
      type: 'switch',
      description: 'remove what is damaged: it is extracted again when it is needed',
    },
  },
  notes:
    'Reads every file. Finds whatever was changed, added or removed: content, modes,\n' +
    'owners, attributes, times. Fails if anything is damaged and stays so. What was\n' +
    'stored in another user namespace looks different: it can be verified there.',
  examples: ['koci cache verify', 'koci cache verify --repair'],

  async run(args, session) {
    const verdicts: Verdict[] = []
    const options = { repair: args.has('repair'), signal: session.signal }
    const show = ({ name, state, problems, repaired }: Verdict): void => {
      session.print(`${name}  ${state}${repaired ? ', removed' : ''}`)
      for (const { kind, path } of problems)
        session.print(`  ${kind}${path === '' ? '' : `  ${path}`}`)
    }
    const paths = await withStores(args, session, async stores => {
      for (const store of stores)
        for await (const verdict of store.verify(options)) {
          verdicts.push(verdict)
          if (!session.json && verdict.state !== 'good') show(verdict)
        }
      return stores.map(({ path }) => path)
    })
    const count = (state: string): number =>
      verdicts.filter(each => each.state === state).length
    if (session.json) session.printJson(verdicts)
    else {
      const elsewhere = count('elsewhere')
      const rest = elsewhere > 0 ? `, ${elsewhere} of another user namespace: not verified` : ''
      session.print(`${count('good')} good, ${count('damaged')} damaged${rest}`)
    }
    const left = verdicts.filter(({ state, repaired }) => state === 'damaged' && !repaired)
    const [what, them] =
      left.length === 1 ? ['a layer is', 'it'] : [`${left.length} layers are`, 'them']
    if (left.length > 0)
      throw createError('INVALID_STORE', {
        subject: paths.join(', '),
        reason: `${what} damaged - koci cache verify --repair removes ${them}`,
      })
  },
}
