"""`pilotwave optimize`: from one model to a build for each runtime, each guarded by data."""
