"""Sentences of the server that pages show, as patterns by what they are about."""
