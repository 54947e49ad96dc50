// Where a hooks file is looked for: apart from what reads it, so that whoever has none loads next to nothing.
import { findConfigFile } from '../../lib/config-directories.ts'

/**
 * The file that counts if none is named: `$XDG_CONFIG_HOME/koci/hooks.toml` (`~/.config` if that isn't set), else
 * `/etc/koci/hooks.toml`; undefined if neither is there. Never anything in the working directory.
 */
export function findHooksFile(): string | undefined {
  return findConfigFile(['hooks.toml'])
}
