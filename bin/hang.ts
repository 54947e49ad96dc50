// Text beside a term, as help has it: in columns, in lines of at most 80.

const width = 80

/** The term, then the text from a column on; a longer term has the text begin on the next line. */
export function hang(term: string, column: number, text: string): string[] {
  const lines: string[] = []
  let line = term
  let isFresh = true
  for (const word of text.split(' ')) {
    const fits = isFresh ? line.length < column : line.length + 1 + word.length <= width
    if (!fits) {
      lines.push(line)
      line = ''
      isFresh = true
    }
    line = isFresh ? `${line.padEnd(column)}${word}` : `${line} ${word}`
    isFresh = false
  }
  return [...lines, line]
}
