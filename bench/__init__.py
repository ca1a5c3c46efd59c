"""Measurements, each a command that prints its figures beside the goals."""
