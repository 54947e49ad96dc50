// A one-off around another step: what changed beneath var/log never becomes part of an image.
// Decorators come before those whom they decorate, here before mtree(), which lists the changes.
import { writeFileSync } from 'node:fs'
import { filter, Koci, mtree } from '../middleware/index.ts' // 'koci' in your program
import { sampleImage } from './sample-image.ts'

const { directory, image, rootless } = await sampleImage()

const app = new Koci()
  .use({
    name: 'no-logs',
    delta: async (ctx, next) => {
      await next()
      ctx.changes = filter(ctx.changes, change => !change.path.startsWith('var/log/'))
    },
  })
  .use(mtree())

const bundle = `${directory}/bundle`
const { rootfs } = await app.unpack({ image, bundle, rootless })
writeFileSync(`${rootfs}/etc/motd`, 'changed\n')
writeFileSync(`${rootfs}/var/log/boot.log`, 'changed\n')

const { changes } = await app.repack({ image: `${directory}/images:next`, bundle })
for (const { kind, path } of changes) console.log(kind, path)

// Output:
// M etc/motd
