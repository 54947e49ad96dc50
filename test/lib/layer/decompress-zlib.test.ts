// Every test of decompression once more with Node's own zlib, which is used where the system has nothing faster.
process.env['KOCI_INFLATER'] = 'zlib'
await import('./decompress.test.ts')
