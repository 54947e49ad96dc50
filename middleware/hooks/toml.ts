// TOML with the line of every key, so that an error can say where it is. The parser knows the language; here its tree
// becomes tables and values.
import { getStaticTOMLValue, ParseError, parseTOML, type AST } from 'toml-eslint-parser'
import { createError } from '../../lib/errors.ts'

/** A table: its entries by key. */
export interface TomlTable {
  readonly type: 'table'
  readonly line: number
  readonly entries: Map<string, TomlNode>
}

/** An array of tables. */
export interface TomlTables {
  readonly type: 'tables'
  readonly line: number
  readonly items: TomlTable[]
}

/** Anything else, as JavaScript has it. */
export interface TomlValue {
  readonly type: 'value'
  readonly line: number
  readonly value: unknown
}

/** What a key has. */
export type TomlNode = TomlTable | TomlTables | TomlValue

/**
 * Parses TOML 1.0.
 * @throws {FormatError} ERR_KOCI_INVALID_HOOKS with the line, for what is no TOML or no UTF-8
 */
export function readToml(bytes: Uint8Array, subject: string): TomlTable {
  const root: TomlTable = { type: 'table', line: 1, entries: new Map() }
  try {
    const text = new TextDecoder('utf-8', { fatal: true }).decode(bytes)
    for (const node of parseTOML(text, { tomlVersion: '1.0' }).body[0].body) {
      if (node.type === 'TOMLKeyValue') addKeyValue(root, node)
      else {
        const table = tableAt(root, node.resolvedKey, node.loc.start.line)
        for (const each of node.body) addKeyValue(table, each)
      }
    }
    return root
  } catch (error) {
    if (error instanceof ParseError)
      throw invalid(subject, error.lineNumber, `column ${error.column + 1}`, error.message)
    if (error instanceof TypeError) throw invalid(subject, 1, 'text', 'not valid UTF-8')
    throw error
  }
}

/** The error for something that isn't as it should be. */
export function invalid(subject: string, line: number, key: string, reason: string): Error {
  return createError('INVALID_HOOKS', { subject, line, key, reason })
}

function addKeyValue(table: TomlTable, { key, value, loc }: AST.TOMLKeyValue): void {
  const names = key.keys.map(part => (part.type === 'TOMLBare' ? part.name : part.value))
  const last = names.pop() ?? ''
  const { line } = loc.start
  tableAt(table, names, line).entries.set(last, toNode(value, line))
}

function toNode(node: AST.TOMLContentNode, line: number): TomlNode {
  if (node.type === 'TOMLInlineTable') {
    const table: TomlTable = { type: 'table', line, entries: new Map() }
    for (const each of node.body) addKeyValue(table, each)
    return table
  }
  if (node.type === 'TOMLArray' && node.elements.length > 0) {
    const items = node.elements.map(each => toNode(each, each.loc.start.line))
    if (items.every(item => item.type === 'table')) return { type: 'tables', line, items }
  }
  return { type: 'value', line, value: getStaticTOMLValue(node) }
}

/** The table at a path, made if it isn't there; a number is a place in an array of tables. */
function tableAt(root: TomlTable, path: readonly (string | number)[], line: number): TomlTable {
  let table = root
  for (const [at, name] of path.entries()) {
    if (typeof name === 'number') continue
    const index = path[at + 1]
    const found = table.entries.get(name)
    if (typeof index === 'number') {
      const tables = found?.type === 'tables' ? found : newTables(table, name, line)
      table = tables.items[index] ??= { type: 'table', line, entries: new Map() }
    } else if (found?.type === 'table') table = found
    else {
      const made: TomlTable = { type: 'table', line, entries: new Map() }
      table.entries.set(name, made)
      table = made
    }
  }
  return table
}

function newTables(table: TomlTable, name: string, line: number): TomlTables {
  const tables: TomlTables = { type: 'tables', line, items: [] }
  table.entries.set(name, tables)
  return tables
}
