"""Operators' own tokens and people, over HTTP."""
