// Where files are looked for that decide what code runs: in the user's directory, then in the system's. Never in the working
// directory, which may be somebody else's. Apart from what reads them, so that whoever has none loads next to nothing.
import { existsSync } from 'node:fs'
import { homedir } from 'node:os'
import path from 'node:path'

/**
 * The first of these names that is there: in `$XDG_CONFIG_HOME/koci` (`~/.config/koci` if that isn't set), else in
 * `/etc/koci`; undefined if none is.
 */
export function findConfigFile(
  names: readonly string[],
  env: NodeJS.ProcessEnv = process.env,
  system: string = '/etc/koci',
): string | undefined {
  const xdg = env['XDG_CONFIG_HOME']
  const home = env['HOME'] ?? homedir()
  const config = xdg && path.isAbsolute(xdg) ? xdg : path.join(home, '.config')
  return [path.join(config, 'koci'), system]
    .filter(directory => path.isAbsolute(directory))
    .flatMap(directory => names.map(name => path.join(directory, name)))
    .find(file => existsSync(file))
}
