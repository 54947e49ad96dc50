// Small things for middleware that wraps a list: `ctx.changes`, `ctx.entries`.

/** Yields what the predicate keeps; reads one item at a time. */
export async function* filter<T>(
  items: Iterable<T> | AsyncIterable<T> | undefined,
  keep: (item: T) => boolean,
): AsyncGenerator<T, void, undefined> {
  for await (const item of items ?? []) if (keep(item)) yield item
}

/** Yields what the function makes of each item; reads one item at a time. */
export async function* map<T, R>(
  items: Iterable<T> | AsyncIterable<T> | undefined,
  change: (item: T) => R | Promise<R>,
): AsyncGenerator<R, void, undefined> {
  for await (const item of items ?? []) yield await change(item)
}
