// Errors: class = what the caller would do, code = what happened, cause = why, details = with what.
// Made only by createError(), from the table beside this file; they cross worker threads as JSON.
import { format } from 'node:util'
import { errorTable, type ErrorClass } from './error-table.ts'
import { printable } from './text.ts'

/** A name in the error table: the code without its prefix `ERR_KOCI_`. */
export type ErrorName = keyof typeof errorTable

/** A stable error code, in Node's form. */
export type ErrorCode = `ERR_KOCI_${ErrorName}`

type Placeholders<T extends string> = T extends `${string}{${infer Field}}${infer Rest}`
  ? Field | Placeholders<Rest>
  : never

/** What an error's message needs, by the placeholders of its template; more fields are welcome. */
export type ErrorDetails<N extends ErrorName = ErrorName> = Record<
  Placeholders<(typeof errorTable)[N][1]>,
  unknown
> & { readonly [field: string]: unknown }

/** The form in which an error crosses threads and is printed by `--json`. */
export interface ErrorJSON {
  name: string
  code: string
  message: string
  details: Record<string, unknown>
  cause?: Pick<NodeJS.ErrnoException, 'name' | 'message' | 'code' | 'syscall'>
}

/**
 * Base of everything that koci throws on purpose. `code` is stable and documented in docs/errors.md; `message`
 * is one line, safe to print (control characters are escaped); `cause` keeps the system's own error untouched.
 */
export class KociError extends Error {
  readonly code: ErrorCode
  readonly details: Readonly<Record<string, unknown>>

  constructor(
    code: ErrorCode,
    message: string,
    details: Record<string, unknown>,
    cause?: unknown,
  ) {
    super(message, cause === undefined ? undefined : { cause })
    this.code = code
    this.details = details
  }

  toJSON(): ErrorJSON {
    const json: ErrorJSON = {
      name: this.name,
      code: this.code,
      message: this.message,
      details: Object.fromEntries(
        Object.entries(this.details).map(([key, value]) => [key, plain(value)]),
      ),
    }
    const { cause } = this
    if (cause instanceof Error) {
      const { code, syscall } = cause as NodeJS.ErrnoException
      json.cause = { name: cause.name, message: cause.message, code, syscall }
    }
    return json
  }
}

/** The caller's program or command line is wrong. */
export class UsageError extends KociError {}
/** The input doesn't have the format it should have. */
export class FormatError extends KociError {}
/** The input isn't the bytes that were promised. Never only a warning. */
export class IntegrityError extends KociError {}
/** The input tried to reach outside of its root. Never only a warning. */
export class BreakoutError extends KociError {}
/** A limit was exceeded; the limit can be raised. */
export class LimitError extends KociError {}
/** Something that was named isn't there. */
export class NotFoundError extends KociError {}
/** Something is in the way; nothing was changed. */
export class ConflictError extends KociError {}
/** koci, this machine or this user can't do that. */
export class UnsupportedError extends KociError {}
/** The operating system refused; see `cause`. */
export class SystemError extends KociError {}

const classes: Record<ErrorClass, typeof KociError> = {
  UsageError,
  FormatError,
  IntegrityError,
  BreakoutError,
  LimitError,
  NotFoundError,
  ConflictError,
  UnsupportedError,
  SystemError,
}

for (const [name, constructor] of Object.entries(classes))
  Object.defineProperty(constructor.prototype, 'name', { value: name })

/**
 * Makes the error of this name; the caller throws it.
 * Bytes among the details are shown as escaped text, and control characters in strings are escaped.
 */
export function createError<N extends ErrorName>(
  name: N,
  details: ErrorDetails<N>,
  cause?: unknown,
): KociError {
  const [className, template] = errorTable[name]
  const message = template.replaceAll(/\{(\w+)\}/g, (_, field: string) => show(details[field]))
  return new classes[className](`ERR_KOCI_${name}`, message, { ...details }, cause)
}

/** Whether something is koci's error of this name. */
export function isError(error: unknown, name: ErrorName): error is KociError {
  return error instanceof KociError && error.code === `ERR_KOCI_${name}`
}

/**
 * Wraps whatever was thrown so that it names its subject; koci's own errors pass unchanged.
 * A system error stays reachable as `cause`, with its `code` and `syscall`.
 */
export function wrapError(error: unknown, subject: unknown): KociError {
  if (error instanceof KociError) return error
  const reason = error instanceof Error ? error.message : format('%s', error)
  return createError('IO', { subject, reason }, error)
}

/** Brings an error back that came from another thread as JSON. */
export function reviveError(json: ErrorJSON): KociError {
  const constructor = classes[json.name as ErrorClass] ?? KociError
  const cause = json.cause && Object.assign(new Error(json.cause.message), json.cause)
  return new constructor(json.code as ErrorCode, json.message, json.details, cause)
}

function show(value: unknown): string {
  if (value instanceof Uint8Array || typeof value === 'string') return printable(value)
  return String(value)
}

function plain(value: unknown): unknown {
  if (value instanceof Uint8Array) return printable(value)
  return typeof value === 'bigint' ? String(value) : value
}
