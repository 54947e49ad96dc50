// Time that doesn't depend on what else the machine is doing.

/** Milliseconds of processor time, user and system, that something synchronous takes. */
export function cpuTime(run: () => unknown): number {
  const before = process.cpuUsage()
  run()
  const { user, system } = process.cpuUsage(before)
  return (user + system) / 1000
}
