"""Whose certificates are believed, and which one this device shows where a server asks for one."""

from __future__ import annotations

import socket
import ssl
from typing import NamedTuple

from pilotwave_protocol.digest import sha256_hex

_ASKS = ("CERTIFICATE_REQUIRED", "UNKNOWN_CA", "BAD_CERTIFICATE", "CERTIFICATE_EXPIRED")
ASKED = (
    "the server asks for a client certificate that it knows: set client_cert and client_key in "
    "agent.toml to a certificate by the fleet's authority that has not expired"
)


class BadAuthorities(OSError):
    """A file of certificates cannot be used."""


class WrongServer(OSError):
    """The server does not have the key that it has to have."""


class ClientCert(NamedTuple):
    """A certificate (PEM, with its chain) and its key, where that is in another file."""

    cert: str
    key: str | None = None


def tls_context(
    ca_file: str | None, client: ClientCert | None = None, *, pinned: bool = False
) -> ssl.SSLContext:
    """Return what verifies a server, and shows it `client` where it asks. The files are read for
    each connection, so renewed ones are taken. Raises `BadAuthorities`, which names the file.
    `pinned`: nobody has to vouch for the server, as `check_pin` follows."""
    try:
        context = ssl.create_default_context(cafile=ca_file or None)
    except OSError as e:
        why = "it holds no certificate" if isinstance(e, ssl.SSLError) else e.strerror
        sentence = f"ca_file {ca_file} cannot be used: {why}; the agent's user must be able to read"
        raise BadAuthorities(f"{sentence} a PEM file there") from e
    if pinned:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
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


def check_pin(sock: object, pin: str) -> None:
    """Raise `WrongServer` and close the connection, unless its other end has this public key:
    `sha256:` and the digest of the key's DER (SubjectPublicKeyInfo)."""
    raw = sock.getpeercert(binary_form=True) if isinstance(sock, ssl.SSLSocket) else None
    found = "no certificate" if raw is None else f"sha256:{_key_digest(raw)}"
    if found != pin:
        if isinstance(sock, socket.socket):
            sock.close()
        raise WrongServer(f"expected a server with the key {pin}; got {found}")


def _key_digest(certificate: bytes) -> str:
    # here, as most devices pin nothing and keep the memory
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
    from cryptography.x509 import load_der_x509_certificate

    try:
        key = load_der_x509_certificate(certificate).public_key()
        der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except (ValueError, UnsupportedAlgorithm):
        return "a key that cannot be read"
    return sha256_hex(der)


def asks_for_certificate(error: ssl.SSLError) -> bool:
    """Say whether the other end ended the connection for the want of a client certificate."""
    reason = error.reason or ""
    return "ALERT" in reason and any(word in reason for word in _ASKS)


def not_known(client: ClientCert) -> str:
    """Return what may be wrong where a server hangs up on a device that shows a certificate."""
    words = "where it asks for a client certificate, it may not know the authority of client_cert"
    return f"; {words} {client.cert}, or that has expired"
