"""Whose certificates are believed: the system's authorities, or those in one file."""

from __future__ import annotations

import ssl


class BadAuthorities(OSError):
    """The file of authorities cannot be used."""


def tls_context(ca_file: str | None) -> ssl.SSLContext:
    """Return what verifies a server. Raises `BadAuthorities`, which names the file."""
    try:
        return ssl.create_default_context(cafile=ca_file or None)
    except OSError as e:
        why = "it holds no certificate" if isinstance(e, ssl.SSLError) else e.strerror
        sentence = f"ca_file {ca_file} cannot be used: {why}; the agent's user must be able to read"
        raise BadAuthorities(f"{sentence} a PEM file there") from e
