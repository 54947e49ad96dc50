// What the bench itself gives up on: a bad option, a program that failed. One line, no stack.

/** An error that is told by its message alone. */
export class BenchError extends Error {
  override readonly name = 'BenchError'
}
