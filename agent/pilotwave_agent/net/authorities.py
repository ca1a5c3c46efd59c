"""Whose certificates are believed, and which one this device shows where a server asks for one."""

from __future__ import annotations

import ssl
from typing import NamedTuple

_ASKS = ("CERTIFICATE_REQUIRED", "UNKNOWN_CA", "BAD_CERTIFICATE", "CERTIFICATE_EXPIRED")
ASKED = (
    "the server asks for a client certificate that it knows: set client_cert and client_key in "
    "agent.toml to a certificate by the fleet's authority that has not expired"
)


class BadAuthorities(OSError):
    """A file of certificates cannot be used."""


class ClientCert(NamedTuple):
    """A certificate (PEM, with its chain) and its key, where that is in another file."""

    cert: str
    key: str | None = None


def tls_context(ca_file: str | None, client: ClientCert | None = None) -> ssl.SSLContext:
    """Return what verifies a server, and shows it `client` where it asks. The files are read for
    each connection, so renewed ones are taken. Raises `BadAuthorities`, which names the file."""
    try:
        context = ssl.create_default_context(cafile=ca_file or None)
    except OSError as e:
        why = "it holds no certificate" if isinstance(e, ssl.SSLError) else e.strerror
        sentence = f"ca_file {ca_file} cannot be used: {why}; the agent's user must be able to read"
        raise BadAuthorities(f"{sentence} a PEM file there") from e
    if client is None:
        return context
    try:
        # a key with a passphrase would ask at the terminal; there is none
        context.load_cert_chain(client.cert, client.key, password=lambda: b"")
    except OSError as e:
        why = "no pair without a passphrase" if isinstance(e, ssl.SSLError) else e.strerror
        pair = f"client_cert {client.cert} and client_key {client.key or client.cert}"
        sentence = f"{pair} cannot be used: {why}; the agent's user must be able to read a"
        raise BadAuthorities(f"{sentence} certificate and its key (PEM) there") from e
    return context


def asks_for_certificate(error: ssl.SSLError) -> bool:
    """Say whether the other end ended the connection for the want of a client certificate."""
    reason = error.reason or ""
    return "ALERT" in reason and any(word in reason for word in _ASKS)


def not_known(client: ClientCert) -> str:
    """Return what may be wrong where a server hangs up on a device that shows a certificate."""
    words = "where it asks for a client certificate, it may not know the authority of client_cert"
    return f"; {words} {client.cert}, or that has expired"
