"""Operators: bearer tokens, their roles, and who may do what."""
