// koci raw mtree-validate: whether a tree is what an mtree manifest says.
import { readFile } from 'node:fs/promises'
import { createError, wrapError } from '../../../lib/errors.ts'
import { toText } from '../../../lib/text.ts'
import type { Arguments } from '../../arguments.ts'
import type { Command } from '../../command.ts'
import { quote } from '../../stat/go-text.ts'

export const mtreeValidate: Command = {
  positionals: [],
  options: {
    file: {
      type: 'text',
      description: 'the manifest; also --manifest',
      value: 'manifest',
      required: true,
      short: 'f',
      alias: 'manifest',
    },
    path: {
      type: 'text',
      description: 'the directory to look at',
      value: 'path',
      required: true,
      short: 'p',
    },
    'use-keywords': {
      type: 'list',
      description: 'compare these keywords only; by default those of the manifest',
      value: 'keywords',
      short: 'k',
    },
    'add-keywords': {
      type: 'list',
      description: 'compare these keywords, too',
      value: 'keywords',
      short: 'K',
    },
    'umoci-keywords': { type: 'switch', description: 'compare the keywords that umoci notes' },
    rootless: { type: 'switch', description: 'for ordinary users; koci needs no telling' },
  },
  notes:
    'Prints one line for each path that differs, with the first keyword in which it\n' +
    'does, and ends with status 1 if there are any. Keywords are separated by commas\n' +
    'or spaces. Types are always compared. With --json, every keyword is shown.',
  examples: [
    'koci raw mtree-validate --file bundle/sha256_0123.mtree --path bundle/rootfs',
    'koci raw mtree-validate -f tree.mtree -p tree -k type,mode,sha256',
  ],

  async run(args, session) {
    const file = args.required('file')
    const { checkMtree, umociKeywords } = await import('../../../lib/bundle/mtree-check.ts')
    const { parseMtreeText } = await import('../../../lib/bundle/mtree-text.ts')
    const bytes = await readFile(file).catch(error => {
      throw wrapError(error, file)
    })
    const chosen = keywords(args, 'use-keywords')
    const path = args.required('path')
    const differences = await checkMtree(path, parseMtreeText(bytes, file), {
      keywords: chosen ?? (args.has('umoci-keywords') ? umociKeywords : undefined),
      moreKeywords: keywords(args, 'add-keywords'),
      signal: session.signal,
      warn: message => session.warn('KEYWORD_IGNORED', message),
    })
    if (session.json)
      session.printJson(
        differences.map(({ rawPath, ...rest }) => ({ path: shown(rawPath), ...rest })),
      )
    else
      for (const { rawPath, kind, keywords } of differences) {
        const [first] = keywords
        const what = first
          ? `keyword "${first.name}": expected ${first.expected}; got ${first.found}`
          : `${kind === 'extra' ? 'unexpected' : 'missing'} path`
        session.print(`${quote(shown(rawPath), 'always')}: ${what}`)
      }
    if (differences.length > 0)
      throw createError('TREE_DIFFERS', { subject: path, count: differences.length })
  },
}

function keywords(args: Arguments, name: string): string[] | undefined {
  return args
    .list(name)
    ?.flatMap(text => text.split(/[, ]+/))
    .filter(word => word !== '')
}

/** As go-mtree names a path: relative, the root as a dot. */
function shown(rawPath: Buffer): string {
  return rawPath.length === 0 ? '.' : toText(rawPath)
}
