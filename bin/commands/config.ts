// koci config: edits of an image's config and annotations.
import { clearable, type Clearable, type ImageEdits } from '../../lib/oci/edit-image.ts'
import type { Arguments } from '../arguments.ts'
import type { Command, Option } from '../command.ts'
import { historyOptions, readHistory } from '../history-options.ts'
import { madeImage } from '../made-image.ts'
import { image, newTag, platform } from '../options.ts'
import { readImage, readNewTag, readPlatform, readTime } from '../read-options.ts'
import { didYouMean, usageError } from '../usage-error.ts'

export const config: Command = {
  positionals: [],
  options: {
    image,
    platform,
    tag: newTag,
    'config.user': text('who runs: user[:group], names or numbers', 'user'),
    'config.workingdir': text('where it runs', 'path'),
    'config.stopsignal': text('the signal that ends it', 'signal'),
    'config.entrypoint': list(
      'a word of the entrypoint, which is replaced; repeatable',
      'word',
    ),
    'config.cmd': list('a word of the command, which is replaced; repeatable', 'word'),
    'config.env': list('set a variable; repeatable', 'name=value'),
    'config.label': list('set a label; repeatable', 'name=value'),
    'config.exposedports': list('add a port; repeatable', 'port[/protocol]'),
    'config.volume': list('add a volume; repeatable', 'path'),
    'manifest.annotation': list('set an annotation; repeatable', 'name=value'),
    clear: list(`empty one of ${clearable.join(', ')}, before all else; repeatable`, 'what'),
    created: text('when the image was made, as in 2026-01-31T12:00:00Z', 'time'),
    author: text('who made the image', 'text'),
    'platform.os': text('the operating system it is for', 'os'),
    os: text('the same', 'os'),
    'platform.arch': text('the machine it is for', 'arch'),
    architecture: text('the same', 'arch'),
    'platform.variant': text('which kind of that machine', 'variant'),
    ...historyOptions('config'),
  },
  notes:
    'What is not named stays as it is. An empty text removes a field. Values may\n' +
    'begin with a dash: --config.cmd -c. Several words are given one by one:\n' +
    '--config.cmd ls --config.cmd -l.',
  examples: [
    'koci config --image images:alpine --config.user nobody --config.env LANG=C',
    'koci config --image images:alpine --tag shell --config.cmd sh --config.cmd -l',
    'koci config --image images:alpine --clear config.labels --config.label a=b',
  ],

  async run(args, session) {
    const image = readImage(args)
    const platform = readPlatform(args)
    const newRefName = readNewTag(args)
    const history = readHistory(args, 'config')
    const edits = readEdits(args)
    const { configureImage } = await import('../../lib/layout/change-image.ts')
    const { signal } = session
    const options = { image, platform, newRefName, history, signal }
    const made = await configureImage(options, edits)
    if (session.json) session.printJson(madeImage(made))
  },
}

function readEdits(args: Arguments): ImageEdits {
  return {
    clear: args.list('clear')?.map(parseClear),
    created: readTime(args, 'created'),
    author: args.text('author'),
    os: platformPart(args, 'platform.os', 'os'),
    architecture: platformPart(args, 'platform.arch', 'architecture'),
    variant: args.text('platform.variant'),
    user: args.text('config.user'),
    workingDir: args.text('config.workingdir'),
    stopSignal: args.text('config.stopsignal'),
    entrypoint: args.list('config.entrypoint'),
    cmd: args.list('config.cmd'),
    env: args.list('config.env'),
    exposedPorts: args.list('config.exposedports'),
    volumes: args.list('config.volume'),
    labels: args.list('config.label'),
    annotations: args.list('manifest.annotation'),
  }
}

function parseClear(text: string): Clearable {
  const key = clearable.find(key => key === text)
  if (key) return key
  if (text === 'rootfs.diffids')
    throw usageError('--clear', 'rootfs.diffids belong to the layers and can not be cleared')
  const hint = didYouMean(text, clearable) || ` - there are ${clearable.join(', ')}`
  throw usageError('--clear', `${text} is nothing that can be cleared${hint}`)
}

/** An image without it couldn't be found by anybody. */
function platformPart(args: Arguments, name: string, alias: string): string | undefined {
  const values = [name, alias].flatMap(each => args.text(each) ?? [])
  if (values.length > 1) throw usageError(`--${name}`, `is the same as --${alias} - give one`)
  if (values[0] === '') throw usageError(`--${name}`, 'is empty')
  return values[0]
}

function text(description: string, value: string): Option {
  return { type: 'text', description, value }
}

function list(description: string, value: string): Option {
  return { type: 'list', description, value }
}
