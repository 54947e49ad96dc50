// Short ways of writing down the members of a layer.
import type { TarMember } from './tar-builder.ts'

/** A file; its content is empty if it isn't given. */
export const file = (
  name: string | Buffer,
  body: string | Buffer = '',
  rest: TarMember = {},
): TarMember => ({ name, body, ...rest })

/** A directory; the name is taken as it is, without a slash at its end. */
export const dir = (name: string | Buffer, rest: TarMember = {}): TarMember => ({
  name,
  type: 'directory',
  ...rest,
})

/** A symlink. */
export const link = (
  name: string | Buffer,
  linkname: string | Buffer,
  rest: TarMember = {},
): TarMember => ({ name, type: 'symlink', linkname, ...rest })

/** A hard link. */
export const hard = (
  name: string | Buffer,
  linkname: string | Buffer,
  rest: TarMember = {},
): TarMember => ({ name, type: 'hardlink', linkname, ...rest })

/** A fifo. */
export const fifo = (name: string | Buffer, rest: TarMember = {}): TarMember => ({
  name,
  type: 'fifo',
  ...rest,
})

/** A character device, 1:3 if nothing else is said. */
export const device = (name: string | Buffer, rest: TarMember = {}): TarMember => ({
  name,
  type: 'char',
  devmajor: 1,
  devminor: 3,
  ...rest,
})
