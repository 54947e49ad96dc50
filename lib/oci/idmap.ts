// Mappings between user or group ids of a container and those of the host, with runtime-spec's field names.
import { createError } from '../errors.ts'

/** `size` ids from `containerID` on are `size` ids from `hostID` on. */
export interface IdMap {
  readonly containerID: number
  readonly hostID: number
  readonly size: number
}

// The last id, 4294967295, means "unchanged" to chown(2): it can't be mapped.
const idEnd = 0xffff_ffff

/**
 * Parses `container:host[:size]`, decimal; the size is 1 if left out.
 * @throws {UsageError} ERR_KOCI_INVALID_OPTION
 */
export function parseIdMap(text: string): IdMap {
  const match = /^(\d{1,10}):(\d{1,10})(?::(\d{1,10}))?$/.exec(text)
  if (!match) throw invalid(text, 'expected container:host[:size] in decimal')
  const [, container, host, count] = match
  const map = { containerID: Number(container), hostID: Number(host), size: Number(count ?? 1) }
  assertIdMap(map, text)
  return map
}

/**
 * Holds a map that a program or a file gave to what `parseIdMap` accepts.
 * @throws {UsageError} ERR_KOCI_INVALID_OPTION
 */
export function assertIdMap(map: IdMap, text: string = JSON.stringify(map)): void {
  const { containerID, hostID, size } = map ?? {}
  if (![containerID, hostID, size].every(id => Number.isSafeInteger(id) && id >= 0))
    throw invalid(text, 'containerID, hostID and size are needed, each a number from 0 on')
  if (size === 0) throw invalid(text, 'the size is 0')
  if (Math.max(containerID, hostID) + size > idEnd)
    throw invalid(text, `ids end at ${idEnd - 1}`)
}

/**
 * The host's id for an id of the container; without maps (undefined or none) the same.
 * The first map that holds the id counts.
 * @throws {FormatError} ERR_KOCI_INVALID_ENTRY no map holds the id
 */
export function toHost(maps: readonly IdMap[] | undefined, id: number): number {
  if (!maps || maps.length === 0) return id
  for (const { containerID, hostID, size } of maps)
    if (id >= containerID && id - containerID < size) return hostID + (id - containerID)
  throw unmapped(id, 'container')
}

/**
 * The container's id for an id of the host; without maps (undefined or none) the same.
 * The first map that holds the id counts.
 * @throws {FormatError} ERR_KOCI_INVALID_ENTRY no map holds the id
 */
export function toContainer(maps: readonly IdMap[] | undefined, id: number): number {
  if (!maps || maps.length === 0) return id
  for (const { containerID, hostID, size } of maps)
    if (id >= hostID && id - hostID < size) return containerID + (id - hostID)
  throw unmapped(id, 'host')
}

function invalid(text: string, reason: string): Error {
  return createError('INVALID_OPTION', { subject: `id map ${text.slice(0, 100)}`, reason })
}

function unmapped(id: number, side: string): Error {
  const reason = `no id map holds this id of the ${side}`
  return createError('INVALID_ENTRY', { subject: `id ${id}`, reason, id })
}
