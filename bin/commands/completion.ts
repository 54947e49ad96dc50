// koci completion: scripts for shells, and the words those ask for.
import type { Command } from '../command.ts'
import { programName } from '../program-name.ts'
import { usageError } from '../usage-error.ts'

export const completion: Command = {
  positionals: ['shell'],
  options: {
    line: {
      type: 'text',
      description: 'print the words that may end this line; for the scripts',
      value: 'text',
    },
  },
  notes:
    'The shell is bash, zsh or fish. Commands, options, drivers and tags are\n' +
    'completed. In ~/.bashrc: source <(koci completion bash)',
  examples: ['koci completion bash', 'koci completion fish'],

  async run(args, session) {
    const [shell = ''] = args.positionals
    const line = args.text('line')
    if (line !== undefined) {
      const { completeLine } = await import('../completion/words.ts')
      for (const word of await completeLine(line)) session.print(word)
      return
    }
    const { scripts } = await import('../completion/scripts.ts')
    const script = Object.hasOwn(scripts, shell) ? scripts[shell] : undefined
    if (script === undefined)
      throw usageError(shell, `no such shell - there are ${Object.keys(scripts).join(', ')}`)
    process.stdout.write(script.replaceAll('NAME', programName))
  },
}
