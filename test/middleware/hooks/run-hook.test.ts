// What helper processes do to those who run them: each row of the list of hostile hooks, by its id.
import { execFileSync, spawn } from 'node:child_process'
import {
  chmodSync,
  existsSync,
  openSync,
  closeSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import path from 'node:path'
import t, { type Test } from 'tap'
import type { HookName } from '../../../middleware/hooks/hook-names.ts'
import type { HookCommand } from '../../../middleware/hooks/hooks-file.ts'
import { readReply } from '../../../middleware/hooks/reply.ts'
import { runHook, type HookCall } from '../../../middleware/hooks/run-hook.ts'
import { openDescriptors } from '../../support/descriptors.ts'
import { hookPlace } from '../../support/hooks.ts'

const skipHook: HookName = 'unpack.ociv1.layer.try-skip'

interface Ran {
  readonly answered: boolean
  readonly output: string
  readonly ms: number
}

interface Room {
  readonly base: string
  readonly run: (body: string, options?: Partial<HookCommand & HookCall>) => Promise<Ran>
  readonly command: (program: string, rest?: Partial<HookCommand>) => HookCommand
}

function room(t: Test): Room {
  const { base, script } = hookPlace(t)
  let count = 0
  const command = (program: string, rest: Partial<HookCommand> = {}): HookCommand => ({
    hook: skipHook,
    command: [program],
    timeoutMs: 20_000,
    env: [],
    fallback: false,
    parallel: false,
    ...rest,
  })
  return {
    base,
    command,
    run: (body, options = {}) =>
      call(command(script(`hook-${++count}`, body), options), options),
  }
}

async function call(hook: HookCommand, options: Partial<HookCall> = {}): Promise<Ran> {
  const chunks: Buffer[] = []
  const start = performance.now()
  const answered = await runHook(hook, {
    args: [],
    input: {},
    signal: new AbortController().signal,
    output: chunk => {
      chunks.push(chunk)
    },
    maxOutput: 1 << 20,
    ...options,
  })
  return { answered, output: Buffer.concat(chunks).toString(), ms: performance.now() - start }
}

/** Whether a process is there, and not only waiting to be buried. */
function isAlive(pid: string): boolean {
  try {
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid.trim()}/status`, 'utf8'))
  } catch {
    return false
  }
}

async function eventually(holds: () => boolean): Promise<boolean> {
  for (let left = 100; left > 0 && !holds(); left--)
    await new Promise(resolve => setTimeout(resolve, 50))
  return holds()
}

await t.test('H01: commands that can not be run', async t => {
  const { base, command } = room(t)
  const cases: [
    name: string,
    content: string | Buffer | undefined,
    mode: number,
    error: { code: string; message?: RegExp; cause?: { code: string } },
  ][] = [
    ['gone', undefined, 0, { code: 'ERR_KOCI_IO', cause: { code: 'ENOENT' } }],
    ['not-executable', 'true', 0o644, { code: 'ERR_KOCI_IO', cause: { code: 'EACCES' } }],
    ['no-program', Buffer.from([0x7f, 1, 2, 3]), 0o755, { code: 'ERR_KOCI_HOOK_FAILED' }],
    [
      'no-interpreter',
      '#!/nonexistent/sh\n',
      0o755,
      { code: 'ERR_KOCI_HOOK_FAILED', message: /exited with status 12[67]/ },
    ],
  ]
  for (const [name, content, mode, error] of cases) {
    const file = path.join(base, name)
    if (content !== undefined) writeFileSync(file, content)
    if (content !== undefined) chmodSync(file, mode)
    await t.rejects(call(command(file)), error, name)
  }
  const busy = path.join(base, 'busy')
  writeFileSync(busy, readFileSync('/bin/true'))
  chmodSync(busy, 0o755)
  const writer = openSync(busy, 'r+')
  try {
    await t.rejects(call(command(busy)), { code: 'ERR_KOCI_HOOK_FAILED', message: /busy/i })
  } finally {
    closeSync(writer)
  }
  t.ok((await call(command(busy))).answered)
  await t.rejects(call(command(busy), { args: ['x'.repeat(1 << 20)] }), {
    code: 'ERR_KOCI_HOOK_FAILED',
    message: /could not be run/,
  })
})

await t.test(
  'H02: one that hangs is stopped with all its group, though it ignores SIGTERM',
  async t => {
    const { base, run } = room(t)
    const hanging = run(
      `trap '' TERM; sleep 1000 & echo $! > ${base}/child; echo $$ > ${base}/self
     echo waiting >&2; while :; do wait; done`,
      // time enough for it to say who it is, on a machine that is busy
      { timeoutMs: 6000 },
    )
    await t.rejects(hanging, {
      code: 'ERR_KOCI_HOOK_FAILED',
      message: /try-skip was stopped after 6 seconds/,
    })
    for (const name of ['child', 'self'])
      t.ok(await eventually(() => !isAlive(readFileSync(`${base}/${name}`, 'utf8'))), name)
  },
)

await t.test('H02: a grandchild that keeps the pipes open is not waited for', async t => {
  const { base, run } = room(t)
  const { output, ms } = await run(`sleep 60 & echo $! > ${base}/child; echo answer`)
  t.equal(output, 'answer\n')
  t.ok(ms < 10_000, `${ms} ms`)
  const child = readFileSync(`${base}/child`, 'utf8')
  t.ok(isAlive(child), 'what a command that succeeded leaves running is left alone')
  process.kill(Number(child))
})

await t.test('H03: endless output is stopped, on both streams', async t => {
  const { run } = room(t)
  await t.rejects(run('exec yes', { maxOutput: 1 << 20 }), {
    code: 'ERR_KOCI_LIMIT_EXCEEDED',
    details: { limit: 'output of a hook', maximum: 1 << 20 },
  })
  await t.rejects(run('exec yes >&2', { timeoutMs: 1000 }), {
    code: 'ERR_KOCI_HOOK_FAILED',
    message: /stopped after 1 seconds/,
  })
  const before = process.memoryUsage().rss
  const { output } = await run('head -c 30000000 /dev/zero >&2; echo done')
  t.equal(output, 'done\n')
  t.ok(process.memoryUsage().rss - before < 200 << 20, 'standard error is not kept')
})

await t.test('H03: a slow reader holds the command back', async t => {
  const { run } = room(t)
  let length = 0
  const { answered } = await run('head -c 20000000 /dev/zero', {
    maxOutput: 1 << 30,
    output: async chunk => {
      length += chunk.length
      if (length % 7 === 0) await new Promise(resolve => setTimeout(resolve, 1))
    },
  })
  t.ok(answered)
  t.equal(length, 20_000_000)
  await t.rejects(
    run('exec yes', {
      output: () => {
        throw Object.assign(new Error('no space'), { code: 'ENOSPC' })
      },
    }),
    { code: 'ENOSPC' },
  )
})

await t.test(
  'H04: failures, with status or signal and the end of standard error, escaped',
  async t => {
    const { run } = room(t)
    const cases: [body: string, message: RegExp, details: object][] = [
      ['exit 1', /exited with status 1: it said nothing/, { status: 1, signal: null }],
      ['exit 255', /exited with status 255/, { status: 255 }],
      ['kill -9 $$', /was ended by SIGKILL/, { status: null, signal: 'SIGKILL' }],
      ['kill -SEGV $$', /was ended by SIGSEGV/, { signal: 'SIGSEGV' }],
      [
        `for i in 1 2 3 4 5 6 7; do echo line $i >&2; done; exit 2`,
        /line 3; line 4; line 5; line 6; line 7$/,
        {},
      ],
      [String.raw`printf 'red \033[31m\rnew\n' >&2; exit 2`, /red \\x1b\[31m\\rnew$/, {}],
      [`head -c 1000000 /dev/zero | tr '\\0' x >&2; exit 2`, /: x{1,4096}$/, {}],
    ]
    for (const [body, message, details] of cases)
      await t.rejects(run(body), { code: 'ERR_KOCI_HOOK_FAILED', message, details }, body)
    t.equal((await run('exit 77')).answered, false, 'it may decline')
    await t.rejects(
      run('exit 77', { hook: 'unpack.ociv1.layer.post-extract' }),
      { code: 'ERR_KOCI_HOOK_FAILED', message: /status 77/ },
      'where there is nothing to decline, it is a failure',
    )
  },
)

await t.test('H05: standard input closed early, never read, or read late', async t => {
  const { run } = room(t)
  const input = { much: 'x'.repeat(4 << 20) }
  for (const body of [
    'exec 0<&-; echo ok',
    'echo ok',
    'sleep 0.2; head -c 10 > /dev/null; echo ok',
  ])
    t.equal((await run(body, { input })).output, 'ok\n', body)
  const { output } = await run('head -c 100000 /dev/zero; cat | wc -c', { input })
  t.match(output, /^\0{100000}4194315\n$/, 'written before anything was read')
})

await t.test('H06: replies that are none', async t => {
  const { command } = room(t)
  const hook = command('/bin/true')
  const cases: [reply: string | Buffer, reason: RegExp][] = [
    ['{"version":1,"rootfs":tr', /invalid JSON/],
    ['{"version":1', /invalid JSON/],
    ['yes', /invalid JSON/],
    ['"dir"', /not a JSON object/],
    ['[]', /not a JSON object/],
    ['null', /not a JSON object/],
    [Buffer.from([0xff, 0xfe, 0]), /invalid JSON|UTF-8/],
    ['{}', /its version is undefined, not 1/],
    ['{"version":2,"rootfs":true}', /its version is 2, not 1/],
    ['{"version":"1"}', /its version is 1, not 1/],
    ['{"version":1,"rootfs":true}{"version":1,"rootfs":true}', /invalid JSON/],
    ['{"version":1}\n{"version":1}', /invalid JSON/],
    ['{"version":1,"rootfs":true,"rootfs":true}', /invalid JSON/],
    ['{"version":1,"__proto__":{"dir":"/"}}', /it has __proto__/],
    ['{"version":1,"x":1}', /it has x/],
    [`{"version":1,"dir":"/${'x'.repeat(9 << 20)}"}`, /size|limit/],
    ['{"version":1,"dir":"/a\\u0000b"}', /its dir is not an absolute path/],
    ['['.repeat(100_000), /depth|deep|limit/],
  ]
  for (const [reply, message] of cases)
    await t.rejects(
      readReply(hook, Buffer.from(reply as string)),
      { code: 'ERR_KOCI_INVALID_REPLY', message },
      reply.toString().slice(0, 60),
    )
  for (const reply of ['', '\n', '  \n']) t.same(await readReply(hook, Buffer.from(reply)), {})
  t.same(await readReply(hook, Buffer.from('\n{"version": 1,\n"rootfs": true}\n')), {
    rootfs: true,
  })
})

await t.test('H07: a clean environment, directory, umask, and no descriptors', async t => {
  const { run } = room(t)
  const secrets = {
    NODE_OPTIONS: '--no-warnings',
    LD_LIBRARY_PATH: '/x',
    KOCI_A: 'a',
    KOCI_B: 'b',
  }
  const before = { ...process.env }
  Object.assign(process.env, secrets)
  t.teardown(() => {
    for (const name of Object.keys(secrets))
      if (before[name] === undefined) delete process.env[name]
      else process.env[name] = before[name]
  })
  // tap adds its own to every child; test/bin/hooks.test.ts has the whole environment
  const { output } = await run('env', { env: ['KOCI_B', 'NOT_SET'] })
  t.match(output, /^KOCI_B=b$/m)
  t.match(output, new RegExp(`^KOCI_HOOK=${skipHook}$`, 'm'))
  t.notMatch(output, /^(KOCI_A|LD_LIBRARY_PATH|NOT_SET|HOME)=/m)
  const former = process.umask(0o077)
  try {
    t.equal((await run('umask; pwd')).output, '0022\n/\n')
  } finally {
    process.umask(former)
  }
  const open = openSync('/etc/passwd', 'r')
  t.teardown(() => closeSync(open))
  t.same(
    (await run('ls /proc/self/fd')).output.split('\n'),
    ['0', '1', '2', '3', ''],
    'ls has 3',
  )
  const leader = 'set -- $(cat /proc/$$/stat); [ "$5" = $$ ] && [ "$6" = $$ ] && echo leader'
  t.equal((await run(leader)).output, 'leader\n', 'a session and a process group of its own')
})

await t.test(
  'H10: a daemon of its own session is neither waited for nor mistaken for a failure',
  async t => {
    const { base, run } = room(t)
    const { answered, ms } = await run(
      `setsid sh -c 'echo $$ > ${base}/daemon; exec sleep 60' & while ! [ -s ${base}/daemon ]; do :; done`,
    )
    t.ok(answered)
    t.ok(ms < 10_000, `${ms} ms`)
    const daemon = readFileSync(`${base}/daemon`, 'utf8')
    t.ok(isAlive(daemon))
    process.kill(Number(daemon))
  },
)

await t.test('H11: nothing is left of many runs', async t => {
  const { base, command } = room(t)
  writeFileSync(path.join(base, 'none'), '')
  const hook = command('/bin/true')
  await call(hook)
  const before = openDescriptors()
  for (let at = 0; at < 40; at++)
    await Promise.all([call(hook), call(hook), call(hook), call(hook)])
  t.equal(openDescriptors(), before, 'descriptors')
  const children = readFileSync(`/proc/self/task/${process.pid}/children`, 'utf8').split(' ')
  const zombies = children.filter(pid => {
    const file = `/proc/${pid}/stat`
    return pid !== '' && existsSync(file) && / Z /.test(readFileSync(file, 'utf8'))
  })
  t.same(zombies, [])
})

await t.test("H12: the host application's handlers stay as they are", async t => {
  const { run } = room(t)
  let children = 0
  const onChild = (): void => void children++
  process.on('SIGCHLD', onChild)
  process.on('SIGPIPE', onChild)
  t.teardown(() => {
    process.off('SIGCHLD', onChild)
    process.off('SIGPIPE', onChild)
  })
  await run('exec 0<&-; echo ok', { input: 'x'.repeat(4 << 20) })
  t.same(process.listeners('SIGCHLD').filter(each => each === onChild).length, 1)
  const own = spawn('/bin/true')
  await new Promise(resolve => own.on('exit', resolve))
  t.ok(await eventually(() => children > 0), "the host's own children are told of")
  t.equal(execFileSync('/bin/echo', ['x']).toString(), 'x\n')
})

await t.test('an aborted run stops the command', async t => {
  const { base, run } = room(t)
  const controller = new AbortController()
  const running = run(`echo $$ > ${base}/self; exec sleep 1000`, { signal: controller.signal })
  running.catch(() => {})
  t.ok(await eventually(() => existsSync(`${base}/self`)))
  controller.abort(new Error('enough'))
  await t.rejects(running, { message: 'enough' })
  t.ok(await eventually(() => !isAlive(readFileSync(`${base}/self`, 'utf8'))))
  await t.rejects(run('true', { signal: controller.signal }), { message: 'enough' })
  rmSync(`${base}/self`)
})
