// Preloaded into every test: tap's loader, which tap gives to whatever a test starts, stays out of koci's worker threads. It
// would make each of three thousand starts half as long again.
delete process.env.NODE_OPTIONS
