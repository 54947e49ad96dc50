// Content digests. A Digest has been through parseDigest(), so it is safe as the name of a blob file:
// two known words, a colon, and exactly as many lower-case hex digits as the algorithm gives.
import { createHash } from 'node:crypto'
import { createError } from '../errors.ts'

declare const brand: unique symbol

/** The algorithms that koci can verify. */
export type Algorithm = 'sha256' | 'sha512'

/** A checked digest, `algorithm:encoded`; made by {@link parseDigest} and {@link digestOf} only. */
export type Digest = `${Algorithm}:${string}` & { readonly [brand]: 'Digest' }

const lengths: Record<Algorithm, number> = { sha256: 64, sha512: 128 }
// The grammar of image-spec v1.1.1, descriptor.md; both parts are bounded before it is tried.
const grammar = /^[a-z0-9]+(?:[+._-][a-z0-9]+)*:[a-zA-Z0-9=_-]+$/

/**
 * Checks a digest that came from outside.
 *
 * **Guarantees** that the result holds no separator, dot, or upper-case digit: it may name a file.
 * @throws {FormatError} ERR_KOCI_INVALID_DIGEST
 * @throws {UnsupportedError} ERR_KOCI_UNSUPPORTED_ALGORITHM well-formed, but not sha256 or sha512
 */
export function parseDigest(text: unknown, subject: string = shorten(text)): Digest {
  if (typeof text !== 'string') throw invalid(subject, 'not a string')
  if (text.length > 512) throw invalid(subject, `${text.length} characters long`)
  if (!grammar.test(text)) throw invalid(subject, 'expected algorithm:encoded')
  const colon = text.indexOf(':')
  const algorithm = text.slice(0, colon)
  if (!isAlgorithm(algorithm))
    throw createError('UNSUPPORTED_ALGORITHM', { subject, algorithm })
  const encoded = text.slice(colon + 1)
  if (encoded.length !== lengths[algorithm] || !/^[0-9a-f]+$/.test(encoded))
    throw invalid(subject, `${algorithm} needs ${lengths[algorithm]} lower-case hex digits`)
  return text as Digest
}

/** The digest of these bytes. */
export function digestOf(bytes: Uint8Array, algorithm: Algorithm = 'sha256'): Digest {
  return toDigest(algorithm, createHash(algorithm).update(bytes).digest('hex'))
}

/** Puts together a digest from what a hash gave; `encoded` is checked only for its length. */
export function toDigest(algorithm: Algorithm, encoded: string): Digest {
  return parseDigest(`${algorithm}:${encoded}`)
}

/** The part before the colon. */
export function algorithmOf(digest: Digest): Algorithm {
  return digest.slice(0, digest.indexOf(':')) as Algorithm
}

/** The part after the colon: lower-case hex. */
export function encodedOf(digest: Digest): string {
  return digest.slice(digest.indexOf(':') + 1)
}

function isAlgorithm(name: string): name is Algorithm {
  return Object.hasOwn(lengths, name)
}

function invalid(subject: string, reason: string): Error {
  return createError('INVALID_DIGEST', { subject, reason })
}

function shorten(text: unknown): string {
  const shown = typeof text === 'string' ? text : `a ${typeof text}`
  return shown.length > 100 ? `${shown.slice(0, 100)}…` : shown
}
