"""Content-addressed bytes: stored once, hashed while they arrive, served with ranges."""
