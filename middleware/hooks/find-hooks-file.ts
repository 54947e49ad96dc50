// Where a hooks file is looked for: apart from what reads it, so that whoever has none loads next to nothing.
import { existsSync } from 'node:fs'
import { homedir } from 'node:os'
import path from 'node:path'

/**
 * The file that counts if none is named: `$XDG_CONFIG_HOME/koci/hooks.toml` (`~/.config` if that isn't set), else
 * `/etc/koci/hooks.toml`; undefined if neither is there. Never anything in the working directory.
 */
export function findHooksFile(
  env: NodeJS.ProcessEnv = process.env,
  system: string = '/etc/koci/hooks.toml',
): string | undefined {
  const xdg = env['XDG_CONFIG_HOME']
  const home = env['HOME'] ?? homedir()
  const config = xdg && path.isAbsolute(xdg) ? xdg : path.join(home, '.config')
  const own = path.join(config, 'koci/hooks.toml')
  return [own, system].find(file => path.isAbsolute(file) && existsSync(file))
}
