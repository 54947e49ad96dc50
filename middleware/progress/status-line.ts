// Where progress is shown: on one line of a terminal, drawn over itself at most ten times a second, or, where there is no
// terminal, as a line now and then. It is never the cursor's place that is hidden or moved to another line, so a program
// that dies leaves nothing to be mended but half a line.
import { clearLine, cursorTo } from 'node:readline'

/** What is written to; standard error is one. */
export interface ProgressStream extends NodeJS.WritableStream {
  readonly isTTY?: boolean
  readonly columns?: number
}

/** Shows a text that changes while something is done. */
export interface Status {
  /** Clears what was drawn, whatever the outcome. Then a last text may stay. */
  during(text: () => string, action: () => Promise<void>): Promise<(last: string) => void>
}

const intervalMs = 100
const plainSeconds = 30

/** What fits a stream: a line of a terminal, or lines. */
export function statusOn(
  stream: ProgressStream,
  options: { isDrawn?: boolean; seconds?: number } = {},
): Status {
  const { isDrawn = stream.isTTY === true, seconds = plainSeconds } = options
  return isDrawn ? new StatusLine(stream) : new PlainLines(stream, seconds)
}

/** One line of a terminal, shared by the runs that are under way. */
class StatusLine implements Status {
  readonly #stream: ProgressStream
  readonly #texts = new Set<() => string>()
  #timer: NodeJS.Timeout | undefined

  constructor(stream: ProgressStream) {
    this.#stream = stream
  }

  async during(
    text: () => string,
    action: () => Promise<void>,
  ): Promise<(last: string) => void> {
    this.#texts.add(text)
    this.#timer ??= setInterval(() => this.#draw(), intervalMs).unref()
    try {
      await action()
    } finally {
      this.#texts.delete(text)
      if (this.#texts.size === 0) {
        clearInterval(this.#timer)
        this.#timer = undefined
      }
      this.#clear()
    }
    return last => void this.#stream.write(`${last}\n`)
  }

  #draw(): void {
    const text = Array.from(this.#texts, text => text()).join(' | ')
    this.#clear()
    // a full line would make some terminals go to the next one
    this.#stream.write(text.slice(0, (this.#stream.columns ?? 80) - 1))
  }

  #clear(): void {
    cursorTo(this.#stream, 0)
    clearLine(this.#stream, 0)
  }
}

/** Lines, one for each interval that something takes: what is done sooner is done in silence. */
class PlainLines implements Status {
  readonly #stream: ProgressStream
  readonly #seconds: number

  constructor(stream: ProgressStream, seconds: number) {
    this.#stream = stream
    this.#seconds = seconds
  }

  async during(
    text: () => string,
    action: () => Promise<void>,
  ): Promise<(last: string) => void> {
    let isSilent = true
    const timer = setInterval(() => {
      isSilent = false
      this.#stream.write(`${text()}\n`)
    }, this.#seconds * 1000).unref()
    try {
      await action()
    } finally {
      clearInterval(timer)
    }
    return last => {
      if (!isSilent) this.#stream.write(`${last}\n`)
    }
  }
}
