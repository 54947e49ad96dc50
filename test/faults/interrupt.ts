// One fault: koci meets it, is run again, and what must hold is looked at.
import { runWith, type Fault, type Point } from './inject.ts'
import type { Operation, World } from './world.ts'

/** A fault that is told is told in one line, with a code. What strips the types, which meets it as well, may add its own. */
const told =
  /^koci: [^\n]+ \[ERR_KOCI_[A-Z_]+\]\n(Error: Failed to sync '<stdout>'[^\n]*\n)*\s*$/

/** What didn't hold. A run that doesn't get to the point this time succeeds. */
export async function interrupt(
  world: World,
  operation: Operation,
  point: Point,
  fault: Fault = 'KILL',
): Promise<string[]> {
  try {
    await world.begin(operation)
    const { code, stderr } = await runWith(fault, point, world.args(operation))
    const untold = fault !== 'KILL' && code !== 0 && !told.test(stderr)
    const problems = untold ? [`exit ${code}: ${stderr}`] : []
    problems.push(...world.untouched())
    if (code !== 0) await world.run(operation)
    return [...problems, ...(await world.problems(operation))]
  } catch (error) {
    return [error instanceof Error ? error.message : String(error)]
  }
}
