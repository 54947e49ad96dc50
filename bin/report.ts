// How an error is told: one line for people, with its code; or its JSON; and as much more as was asked for.
import { existsSync } from 'node:fs'
import { KociError, wrapError } from '../lib/errors.ts'
import { readPrivileges } from '../lib/fs/privileges.ts'
import { printable } from '../lib/text.ts'
import { programName } from './program-name.ts'
import { note } from './session.ts'
import { usageError } from './usage-error.ts'

/** What is to be told beside the error's own line. */
export interface ReportOptions {
  readonly json: boolean
  /** The causes, too. */
  readonly causes: boolean
  /** Stack traces, too. */
  readonly stacks: boolean
  /** Whether --rootless could be the remedy for a lack of privilege. */
  readonly canBeRootless: boolean
}

/** Prints an error on standard error. What isn't koci's own is a defect, and shows where it is. */
export function report(reason: unknown, options: ReportOptions): void {
  const thrown = hasNoDirectory(reason) ? noDirectory() : reason
  const error = wrapError(thrown, 'koci')
  if (options.json) {
    process.stderr.write(`${JSON.stringify(error)}\n`)
    return
  }
  note(`${programName}: ${error.message} [${error.code}]`)
  const chain = [...causesOf(error)]
  if (!(thrown instanceof KociError)) {
    note(`${programName}: this is a defect of koci; please report it`)
    options = { ...options, stacks: true }
  }
  if (options.causes || options.stacks)
    for (const cause of chain.slice(1)) note(`  caused by: ${describe(cause)}`)
  if (options.stacks) for (const each of chain) if (each instanceof Error) printStack(each)
  if (isUnspeakable())
    note(
      `${programName}: hint: the working directory's path isn't UTF-8, so that relative paths don't lead anywhere: give absolute ones, or change to another`,
    )
  if (options.canBeRootless && chain.some(isPermission))
    note(`${programName}: hint: without the privileges of root, try --rootless`)
}

/** Whether a relative path could mean nothing because the directory it begins in has been removed. */
function hasNoDirectory(error: unknown): boolean {
  return [...causesOf(error)].some(
    cause => cause instanceof Error && (cause as NodeJS.ErrnoException).syscall === 'uv_cwd',
  )
}

/** Node can't say where it is, then. */
function isUnspeakable(): boolean {
  try {
    return process.cwd().includes('\uFFFD') && !existsSync(process.cwd())
  } catch {
    return false
  }
}

function noDirectory(): Error {
  return usageError('working directory', 'it is gone - change to another')
}

/** The error, its cause, the cause of that; at most ten. */
function* causesOf(error: unknown): Generator {
  let at: unknown = error
  for (let depth = 0; at !== undefined && depth < 10; depth++) {
    yield at
    at = at instanceof Error ? at.cause : undefined
  }
}

/** Whether it was refused for want of a privilege that --rootless does without. */
function isPermission(error: unknown): boolean {
  const { code, syscall } = (error ?? {}) as NodeJS.ErrnoException
  if (readPrivileges().extractsAll) return false
  // an owner that the user namespace has no number for
  if (code === 'EINVAL') return syscall === 'fchown' || syscall === 'fchownat'
  return code === 'EPERM' || code === 'EACCES' || code === 'ERR_KOCI_NEEDS_PRIVILEGE'
}

function describe(cause: unknown): string {
  if (!(cause instanceof Error)) return String(cause)
  const { code } = cause as NodeJS.ErrnoException
  return code === undefined || cause.message.includes(code)
    ? cause.message
    : `${cause.message} [${code}]`
}

function printStack(error: Error): void {
  for (const line of (error.stack ?? '').split('\n')) note(`  ${printable(line)}`)
}
