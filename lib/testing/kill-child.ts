// The child that `killAndRerun` kills: unpacks one image with the chain that a module makes.
import { Koci } from '../application.ts'
import type { DriverTest } from './test-driver.ts'

const [, , module = '', store = '', image = '', bundle = '', rootless] = process.argv
const { create } = (await import(module)) as Pick<DriverTest, 'create'>
const made = create(store)
const app = new Koci()
for (const driver of [made].flat()) app.use(driver)
await app.unpack({ image, bundle, rootless: rootless === 'true' })
