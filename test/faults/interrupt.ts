// One fault: koci meets it, is run again, and what must hold is looked at.
import type { Outcome } from '../bin/run-koci.ts'
import { runWith, type Fault, type Point } from './inject.ts'
import type { Operation, World } from './world.ts'

/** A fault that is told is told in one line, with a code. What strips the types, which meets it as well, may add its own. */
const told =
  /^koci: [^\n]+ \[ERR_KOCI_[A-Z_]+\]\n(Error: Failed to sync '<stdout>'[^\n]*\n)*\s*$/

/** What didn't hold. A run that doesn't get to the point this time succeeds. */
export function interrupt(
  world: World,
  operation: Operation,
  point: Point,
  fault: Fault = 'KILL',
): Promise<string[]> {
  return meet(world, operation, fault === 'KILL' ? /^/ : told, args =>
    runWith(fault, point, args),
  )
}

/** What didn't hold after a run that lacked something; `isTold` is what it has to say then, if it fails. */
export async function meet(
  world: World,
  operation: Operation,
  isTold: RegExp,
  run: (args: readonly string[]) => Promise<Outcome>,
): Promise<string[]> {
  try {
    await world.begin(operation)
    const { code, stderr } = await run(world.args(operation))
    const problems = code === 0 || isTold.test(stderr) ? [] : [`exit ${code}: ${stderr}`]
    problems.push(...world.untouched())
    // what Node does at its end can be interrupted, too, when all is done
    if (code !== 0 && !(await world.isUnpacked(operation))) await world.run(operation)
    return [...problems, ...(await world.problems(operation))]
  } catch (error) {
    return [error instanceof Error ? error.message : String(error)]
  }
}
