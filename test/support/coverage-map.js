// tap's coverage map: a unit test counts for the module it is named after; everything else would be accidental.
export default test =>
  test.startsWith('test/lib/') || test.startsWith('test/middleware/')
    ? [test.slice('test/'.length).replace(/\.test\.ts$/, '.ts')]
    : null
