// Makes docs/errors.md from the error table: `npm run docs`.
import { writeFileSync } from 'node:fs'
import { errorTable, type ErrorClass } from '../lib/error-table.ts'

const classes: Record<ErrorClass, string> = {
  UsageError: "The caller's program or command line is wrong.",
  FormatError: 'The input does not have the format it should have.',
  IntegrityError: 'The input is not the bytes that were promised.',
  BreakoutError: 'The input tried to reach outside of its root.',
  LimitError: 'A limit was exceeded; it can be raised.',
  NotFoundError: 'Something that was named is not there.',
  ConflictError: 'Something is in the way; nothing was changed.',
  UnsupportedError: 'koci, this machine or this user cannot do that.',
  SystemError: 'The operating system refused; the cause has its code.',
}

/** The text of docs/errors.md. */
export function errorDocs(): string {
  const sections = Object.entries(classes).map(([name, meaning]) => {
    const rows = Object.entries(errorTable)
      .filter(([, [className]]) => className === name)
      .map(
        ([code, [, message, docs]]) => `| \`ERR_KOCI_${code}\` | ${docs} | ${cell(message)} |`,
      )
    return [
      `## ${name}`,
      '',
      meaning,
      '',
      '| code | when | message |',
      '| --- | --- | --- |',
      ...rows,
      '',
    ].join('\n')
  })
  return `# Errors

Made from \`lib/error-table.ts\` by \`npm run docs\`; don't edit.

Everything koci throws on purpose is a \`KociError\`: the class tells what a caller would do about it, \`code\` what
happened, \`cause\` why (a system error with its own \`code\`, such as \`ENOSPC\`), \`details\` with what. Codes are stable;
messages are for people and may change.

${sections.join('\n')}`
}

function cell(message: string): string {
  return `\`${message.replaceAll('|', String.raw`\|`)}\``
}

if (import.meta.main) writeFileSync(new URL('errors.md', import.meta.url), errorDocs())
