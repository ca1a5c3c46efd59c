"""The certificate with which the server itself answers HTTPS, its renewal while it runs, and the
authority of devices' own certificates."""

from __future__ import annotations

import logging
import os
import ssl
from pathlib import Path

from pilotwave_server.errors import BadSetting
from pilotwave_server.settings import Settings
from pilotwave_server.workers import Periodic

log = logging.getLogger(__name__)
LOOK_S = 30.0


def files(settings: Settings) -> tuple[Path, Path] | None:
    """Certificate and key of these settings, None where HTTPS is not the server's. BadSetting."""
    cert, key = settings.tls_cert, settings.tls_key
    if cert is None and key is None:
        return None
    if cert is None or key is None:
        raise BadSetting("tls_cert and tls_key go together: give both, or neither")
    return cert, key


def check(settings: Settings) -> None:
    """Raise BadSetting where HTTPS is asked for and cannot be had."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if found := files(settings):
        load(context, *found)
    if settings.tls_client_ca is not None:
        if found is None:
            raise BadSetting(
                "tls_client_ca needs tls_cert and tls_key: the server answers no HTTPS"
            )
        ask_for_certificates(context, settings.tls_client_ca)


def ask_for_certificates(context: ssl.SSLContext, authority: Path) -> None:
    """Have clients asked for a certificate by this authority. Those that show none may still come:
    people do, and `connections` says where devices may not. Raises BadSetting."""
    try:
        context.load_verify_locations(authority)
    except OSError as error:
        why = "it holds no certificate" if isinstance(error, ssl.SSLError) else error.strerror
        raise BadSetting(
            f"tls_client_ca {authority}: expected the authority's certificate as PEM, which the "
            f"server's user can read: {why}"
        ) from error
    context.verify_mode = ssl.CERT_OPTIONAL


def load(context: ssl.SSLContext, cert: Path, key: Path) -> None:
    """Have connections from now on see this certificate. Raises BadSetting."""
    try:
        # a key with a passphrase would ask at the terminal; there is none
        context.load_cert_chain(cert, key, password=lambda: b"")
    except ssl.SSLError as error:
        raise BadSetting(
            f"tls_cert {cert} and tls_key {key}: expected a PEM certificate (with its chain) and "
            f"the key that belongs to it, without a passphrase: {error.reason or error}"
        ) from error
    except OSError as error:
        raise BadSetting(
            f"tls_cert {cert} and tls_key {key}: the server's user must be able to read both: "
            f"{error.strerror}"
        ) from error


class Renewal:
    """Takes a renewed certificate without a restart. Connections that are open keep the old one."""

    def __init__(self, context: ssl.SSLContext, cert: Path, key: Path) -> None:
        self._context, self._files = context, (cert, key)
        self._seen = self._marks()
        self._again = Periodic("certificate", self.look, interval_s=LOOK_S)

    def start(self) -> None:
        self._again.start()

    def stop(self) -> None:
        self._again.stop()

    def look(self) -> None:
        """Load the files if they changed. Raises BadSetting, and tries again at the next look."""
        marks = self._marks()
        if marks != self._seen:
            # tried apart first: a key without its new certificate must not end up in use
            load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), *self._files)
            load(self._context, *self._files)
            self._seen = marks
            log.info("took the renewed certificate %s", self._files[0])

    def _marks(self) -> list[tuple[int, int]]:
        found = [os.stat(path) for path in self._files]
        return [(mark.st_mtime_ns, mark.st_ino) for mark in found]
