// What the kernel is told while hostile layers are applied: inside a rootfs never more than one component, never `..`.
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'

const skip = spawnSync('strace', ['-V']).status !== 0 && 'needs strace'

await t.test(
  'every path in a rootfs is one component relative to a descriptor',
  { skip },
  async t => {
    const dir = mkdtempSync(join(tmpdir(), 'koci-strace-'))
    t.teardown(() => {
      rmSync(dir, { recursive: true })
    })
    const script = `
    import { makeSandbox } from '${new URL('../../support/extract.ts', import.meta.url).href}'
    const sandbox = makeSandbox('${dir}')
    const rootless = process.getuid() !== 0
    const pax = [['SCHILY.xattr.user.k', 'v']]
    // read in once, so that the trace shows the work only
    const lower = [
      { name: 'XXd/e/f/g/a', body: 'x', pax }, { name: 'XXup', type: 'symlink', linkname: '../../XXd/e' },
      { name: 'XXup/f/b', body: 'y' }, { name: 'XXp', type: 'fifo', pax }, { name: 'XXd/e', type: 'directory', mode: 448, pax },
      { name: 'XXh', type: 'hardlink', linkname: '/XXup/f/g/a' }, { name: 'XXabs', type: 'symlink', linkname: '/XXd/e/f' },
    ]
    const upper = [
      { name: 'XXup/f/g/new' }, { name: 'XXabs/g/a' }, { name: 'XXd/e/f/.wh.b' }, { name: 'XXd/.wh..wh..opq' },
      { name: 'XXup/../XXp', type: 'directory' }, { name: 'XXh/under' }, { name: '.wh.XXd' }, { name: 'XXgone/x' }, { name: 'XXabs', type: 'directory' },
    ]
    sandbox.apply([lower, upper, [{ name: '.wh..wh..opq' }]], { rootless, hashFiles: true })
    console.log(sandbox.escaped())`
    const log = join(dir, 'trace')
    const run = spawnSync(
      'strace',
      [
        '-f',
        '-s',
        '300',
        '-e',
        'trace=%file,unlinkat,renameat2',
        '-o',
        log,
        process.execPath,
        '--input-type=module',
        '-e',
        script,
      ],
      { encoding: 'utf8', timeout: 60_000, env: { ...process.env, NODE_OPTIONS: '' } },
    )
    t.match(run, { status: 0, stdout: 'false\n' }, run.stderr)
    const calls = readFileSync(log, 'utf8').split('\n')
    const ours = calls.filter(line => line.includes('XX'))
    t.ok(ours.length > 40, `${ours.length} calls name something of the layers`)
    for (const line of ours) {
      // a symlink's own text is stored, not followed
      const text = line
        .replace(/symlinkat\("[^"]*", /, 'symlinkat(')
        .replace(/readlinkat\((\d+, "[^"]*"), .*/, 'readlinkat($1')
      for (const [, path = ''] of text.matchAll(/"([^"]*)"/g)) {
        const allowed = !path.includes('/') || /^\/proc\/self\/fd\/\d+\/[^/]+$/.test(path)
        if (!allowed || path === '..') t.fail(line)
      }
      if (/\(AT_FDCWD, "XX/.test(text)) t.fail(line)
    }
    const up = calls.filter(line => /\d+, "\.\."/.test(line))
    t.strictSame(up, [], '".." is never sent to the kernel')
  },
)
