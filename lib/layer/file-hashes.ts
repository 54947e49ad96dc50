// What extraction learned about the files it wrote: content hash by inode, so that the bundle's record needs no
// second reading. Typed arrays, because a big image has 10^5 files and they cross threads.

/** What is known of one file. `mtime` is in ns. */
export interface FileHash {
  readonly sha256: Buffer
  readonly size: number
  readonly mtime: bigint
}

/** The arrays of a FileHashes on their way between threads; moved, not copied. */
export interface TransferredHashes {
  readonly count: number
  readonly inodes: BigUint64Array<ArrayBuffer>
  readonly sums: Uint8Array<ArrayBuffer>
  readonly sizes: Float64Array<ArrayBuffer>
  readonly mtimes: BigInt64Array<ArrayBuffer>
}

const SUM = 32

/**
 * How many hashes an extraction keeps, 56 bytes each: more than any usual image has files. What a layer that is made to
 * fill memory has beyond them is read again.
 */
export const keptHashes: number = 2 ** 19

/**
 * Hashes of files by inode number; what was added last about an inode counts. The first look-up after additions makes
 * an index of all: first add, then look up.
 *
 * **Does not protect against** changes since: whoever uses a hash compares size and mtime with the file's, and must
 * know that all files are on one file system.
 */
export class FileHashes {
  readonly #most: number
  #count = 0
  #inodes = new BigUint64Array(256)
  #sums = new Uint8Array(256 * SUM)
  #sizes = new Float64Array(256)
  #mtimes = new BigInt64Array(256)
  #index: InodeTable | undefined

  /** `most`: of what is more, the older half is given up. */
  constructor(most: number = Infinity) {
    this.#most = most
  }

  /** How many additions there were, less those that were given up. */
  get length(): number {
    return this.#count
  }

  /** `sha256`: 32 bytes, which are copied. A file from after 2262 is as good as not hashed: its mtime doesn't fit. */
  add(inode: bigint, sha256: Uint8Array, size: number, mtime: bigint): void {
    if (this.#count >= this.#most) this.#giveUp(this.#count - (this.#most >> 1))
    if (this.#count === this.#inodes.length) this.#grow(this.#count * 2)
    const at = this.#count++
    this.#inodes[at] = inode
    this.#sums.set(sha256, at * SUM)
    this.#sizes[at] = mtime === BigInt.asIntN(64, mtime) ? size : -1
    this.#mtimes[at] = mtime
    this.#index = undefined
  }

  /** Notes that nothing is known about an inode any more: it was reused for a file that wasn't hashed. */
  forget(inode: bigint): void {
    this.add(inode, unknownSum, -1, 0n)
  }

  get(inode: bigint): FileHash | undefined {
    this.#index ??= new InodeTable(this.#inodes, this.#count)
    const at = this.#index.find(inode)
    if (at < 0) return undefined
    const size = this.#sizes[at] as number
    if (size < 0) return undefined
    const sha256 = Buffer.from(this.#sums.subarray(at * SUM, (at + 1) * SUM))
    return { sha256, size, mtime: this.#mtimes[at] as bigint }
  }

  /** Adds all of `other`, which was made later, and is empty afterwards. */
  merge(other: FileHashes): void {
    if (this.#count === 0) this.#adopt(other.toTransferable().value)
    else this.#append(other)
  }

  #append(other: FileHashes): void {
    this.#giveUp(Math.min(this.#count, this.#count + other.#count - this.#most))
    const total = this.#count + other.#count
    if (total > this.#inodes.length) this.#grow(Math.max(total, this.#inodes.length * 2))
    this.#inodes.set(other.#inodes.subarray(0, other.#count), this.#count)
    this.#sums.set(other.#sums.subarray(0, other.#count * SUM), this.#count * SUM)
    this.#sizes.set(other.#sizes.subarray(0, other.#count), this.#count)
    this.#mtimes.set(other.#mtimes.subarray(0, other.#count), this.#count)
    this.#count = total
    this.#index = undefined
    other.toTransferable()
  }

  /** Forgets the oldest. */
  #giveUp(count: number): void {
    if (count <= 0) return
    this.#inodes.copyWithin(0, count, this.#count)
    this.#sums.copyWithin(0, count * SUM, this.#count * SUM)
    this.#sizes.copyWithin(0, count, this.#count)
    this.#mtimes.copyWithin(0, count, this.#count)
    this.#count -= count
    this.#index = undefined
  }

  #adopt(value: TransferredHashes): void {
    this.#count = value.count
    this.#inodes = value.inodes
    this.#sums = value.sums
    this.#sizes = value.sizes
    this.#mtimes = value.mtimes
    this.#index = undefined
  }

  /** Gives the arrays away, for `postMessage(value, transferList)`; this object is empty afterwards. */
  toTransferable(): { value: TransferredHashes; transferList: ArrayBuffer[] } {
    const value = {
      count: this.#count,
      inodes: this.#inodes,
      sums: this.#sums,
      sizes: this.#sizes,
      mtimes: this.#mtimes,
    }
    this.#count = 0
    this.#inodes = new BigUint64Array(1)
    this.#sums = new Uint8Array(SUM)
    this.#sizes = new Float64Array(1)
    this.#mtimes = new BigInt64Array(1)
    this.#index = undefined
    const { inodes, sums, sizes, mtimes } = value
    return {
      value,
      transferList: [inodes.buffer, sums.buffer, sizes.buffer, mtimes.buffer],
    }
  }

  static fromTransferable(value: TransferredHashes): FileHashes {
    const hashes = new FileHashes()
    hashes.#adopt(value)
    return hashes
  }

  #grow(capacity: number): void {
    const inodes = new BigUint64Array(capacity)
    inodes.set(this.#inodes)
    this.#inodes = inodes
    const sums = new Uint8Array(capacity * SUM)
    sums.set(this.#sums)
    this.#sums = sums
    const sizes = new Float64Array(capacity)
    sizes.set(this.#sizes)
    this.#sizes = sizes
    const mtimes = new BigInt64Array(capacity)
    mtimes.set(this.#mtimes)
    this.#mtimes = mtimes
  }
}

/**
 * Where in a list of inodes each was last: a hash table with open addressing in typed arrays, because a Map of
 * 100,000 bigints takes longer to fill than all the files of which they are take to be looked at.
 */
class InodeTable {
  readonly #words: Uint32Array
  /** Places in the list, plus one; 0 is free. */
  readonly #places: Uint32Array
  readonly #mask: number
  readonly #sought = new BigUint64Array(1)
  readonly #soughtWords = new Uint32Array(this.#sought.buffer)

  constructor(inodes: BigUint64Array<ArrayBuffer>, count: number) {
    const size = 2 ** Math.ceil(Math.log2(count * 2 + 2))
    this.#words = new Uint32Array(inodes.buffer)
    this.#places = new Uint32Array(size)
    this.#mask = size - 1
    for (let at = 0; at < count; at += 1) {
      const low = this.#words[at * 2] as number
      const high = this.#words[at * 2 + 1] as number
      this.#places[this.#slotOf(low, high)] = at + 1
    }
  }

  /** The last place of an inode in the list, or -1. */
  find(inode: bigint): number {
    this.#sought[0] = inode
    const [low = 0, high = 0] = this.#soughtWords
    return (this.#places[this.#slotOf(low, high)] as number) - 1
  }

  /** The slot that an inode is in, or is to be put. */
  #slotOf(low: number, high: number): number {
    const words = this.#words
    for (let slot = mix(low ^ Math.imul(high, 0x9e3779b1)); ; slot += 1) {
      slot &= this.#mask
      const at = (this.#places[slot] as number) - 1
      if (at < 0 || (words[at * 2] === low && words[at * 2 + 1] === high)) return slot
    }
  }
}

/** The end of MurmurHash3: every bit counts for every other. */
function mix(word: number): number {
  let hash = Math.imul(word ^ (word >>> 16), 0x85ebca6b)
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35)
  return hash ^ (hash >>> 16)
}

const unknownSum = new Uint8Array(SUM)
