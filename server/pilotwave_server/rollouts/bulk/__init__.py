"""One act on many devices."""
