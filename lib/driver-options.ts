// What a driver says of its own making: the options that its factory takes, so that a command line can read and check
// them; and what a bundle has to remember to make it again.

/** What an option of a driver is, so that `--use name:key=value` can be read and checked. */
export interface DriverOption {
  readonly type: 'string' | 'number' | 'boolean'
  readonly description: string
}

/** The value of an option. */
export type OptionValue = string | number | boolean

/** How a driver is made again: by the factory of its name, given these options. */
export interface Recipe {
  /** The installed package whose factory it is: `koci-driver-…`, scoped or not. @default one of koci's own */
  readonly package?: string
  /** Those that were given. */
  readonly options?: Readonly<Record<string, OptionValue | undefined>>
}
