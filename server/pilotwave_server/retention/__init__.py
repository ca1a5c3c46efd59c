"""Bytes that are removed: of a version that must go, and of what nobody needs any more."""
