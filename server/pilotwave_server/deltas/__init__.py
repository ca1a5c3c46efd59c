"""Deltas between blobs: which pairs the fleet needs, making them, giving them out."""
