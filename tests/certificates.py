"""Certificates that tests make, and the authorities that they trust."""

from __future__ import annotations

import atexit
import os
import tempfile
from datetime import datetime, timedelta, timezone
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


def self_signed(host: str) -> tuple[bytes, bytes]:
    """Return a certificate for `host` that vouches for itself, and its key, both as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    now = datetime.now(timezone.utc)
    made = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    made = made.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    made = made.add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
    made = made.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    return made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM), pem(key)


def issued(name: str, *, by: tuple[bytes, bytes]) -> tuple[bytes, bytes]:
    """Return a client certificate for `name` and its key, both as PEM, by an authority's pair."""
    issuer = x509.load_pem_x509_certificate(by[0])
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now, serial = datetime.now(timezone.utc), x509.random_serial_number()
    made = x509.CertificateBuilder(issuer.subject, subject, key.public_key(), serial)
    made = made.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    signer = serialization.load_pem_private_key(by[1], None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    cert = made.sign(signer, hashes.SHA256())
    return cert.public_bytes(serialization.Encoding.PEM), pem(key)


def pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def trust_no_public_authority() -> None:
    """Let this process and its children trust one certificate alone, whose key nobody has.

    No test leaves this machine, and reading the system's authorities takes 40 ms of CPU for each
    client that is made.
    """
    handle, path = tempfile.mkstemp(suffix=".pem")
    with os.fdopen(handle, "wb") as file:
        file.write(self_signed("nobody.invalid")[0])
    atexit.register(Path(path).unlink, missing_ok=True)
    os.environ["SSL_CERT_FILE"] = path
