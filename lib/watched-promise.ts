// A promise that knows whether anybody asked how it ended: await, then, catch and finally all come through `then`.

/** What `next()` returns, so that a failure nobody asked about isn't lost. A rejection that nobody handles is no crash. */
export class WatchedPromise extends Promise<void> {
  asked = false

  /** Settles as `promise` does. */
  static watch(promise: Promise<void>): WatchedPromise {
    const watched = new WatchedPromise((resolve, reject) => void promise.then(resolve, reject))
    void Promise.prototype.then.call(watched, undefined, () => {})
    return watched
  }

  static override get [Symbol.species](): PromiseConstructor {
    return Promise
  }

  override then<A = void, B = never>(
    fulfilled?: ((value: void) => A | PromiseLike<A>) | null,
    rejected?: ((reason: unknown) => B | PromiseLike<B>) | null,
  ): Promise<A | B> {
    this.asked = true
    return super.then(fulfilled, rejected)
  }
}
