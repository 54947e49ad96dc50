// What figures are worth nothing without: the machine, its load, the versions.
import { readFileSync } from 'node:fs'
import os from 'node:os'

/** What is told of a machine; bytes. */
export interface Machine {
  readonly cpu: string
  readonly cores: number
  readonly memory: number
  readonly kernel: string
  readonly node: string
  /** Runnable processes, averaged over a minute: beyond 1 or so somebody else was at work. */
  readonly load: number
}

/** As it is now. */
export function describeMachine(): Machine {
  return {
    cpu: os.cpus()[0]?.model ?? 'unknown',
    cores: os.availableParallelism(),
    memory: os.totalmem(),
    kernel: os.release(),
    node: process.version,
    load: Math.round((os.loadavg()[0] ?? 0) * 100) / 100,
  }
}

/** Bytes that can be had without swapping. */
export function availableMemory(): number {
  const kilobytes = /^MemAvailable:\s+(\d+)/m.exec(readFileSync('/proc/meminfo', 'latin1'))
  return Number(kilobytes?.[1] ?? 0) * 1024
}
