// The arguments of a command after parsing, by name and type.

export class Arguments {
  readonly positionals: readonly string[]
  readonly #values: Readonly<Record<string, unknown>>

  constructor(positionals: readonly string[], values: Readonly<Record<string, unknown>>) {
    this.positionals = positionals
    this.#values = values
  }

  /** A text option; undefined if it wasn't given. */
  text(name: string): string | undefined {
    const value = this.#values[name]
    return typeof value === 'string' ? value : undefined
  }

  /** A text option or positional that parsing made sure of. */
  required(name: string): string {
    return this.text(name) ?? ''
  }

  /** A list option; undefined if it wasn't given. */
  list(name: string): readonly string[] | undefined {
    const value = this.#values[name]
    return Array.isArray(value) ? value.map(String) : undefined
  }

  /** Whether a switch is on. */
  has(name: string): boolean {
    return this.#values[name] === true
  }
}
