"""Offline key files: which there are, their passphrases, loading those that a document needs."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from getpass import getpass
from pathlib import Path

from securesystemslib.signer import Signer

from pilotwave_cli.errors import CliError
from pilotwave_protocol import signing
from pilotwave_protocol.errors import SigningError


class Passphrases:
    """Where passphrases come from: a file, PILOTWAVE_PASSPHRASE, or the person at the terminal."""

    def __init__(self, file: Path | None = None) -> None:
        self._given: str | None = os.environ.get("PILOTWAVE_PASSPHRASE")
        self._asked: dict[str, str] = {}
        if file is not None:
            try:
                self._given = file.read_text().rstrip("\r\n")
            except OSError as e:
                raise CliError(f"{file}: cannot be read: {e.strerror}") from e
            if not self._given:
                raise CliError(f"{file}: expected a passphrase; the file is empty")

    def __call__(self, name: str) -> str | None:
        """Return the passphrase of a key file; None where there is none to be had."""
        if self._given is not None:
            return self._given
        if not sys.stdin.isatty():
            return None
        if name not in self._asked:
            self._asked[name] = getpass(f"Passphrase of {name}: ")
        return self._asked[name]

    def choose(self) -> str:
        """Ask for a new passphrase, twice on a terminal."""
        if self._given is not None:
            return self._given
        if not sys.stdin.isatty():
            raise CliError("give a passphrase (--passphrase-file, PILOTWAVE_PASSPHRASE) or --plain")
        first = getpass("Passphrase for the new keys: ")
        if not first or first != getpass("Once more: "):
            raise CliError("expected the same passphrase twice, and not an empty one")
        return first


def load_keys(refs: Iterable[Path], ask: Passphrases) -> list[Signer]:
    """Load each named key file or reference."""
    return [signing.load_signer(ref, ask) for ref in refs]


def find_keys(folder: Path, wanted: Iterable[str], ask: Passphrases, what: str) -> list[Signer]:
    """Load the keys of a folder whose public half is wanted; raises `CliError` when none is."""
    ids = set(wanted)
    found: list[Signer] = []
    locked: list[str] = []
    for path in sorted([*folder.glob("*.pem"), *folder.glob("*.key.json")]):
        known = public_id(path)
        if known is not None and known not in ids:
            continue
        try:
            signer = signing.load_signer(path, ask)
        except SigningError as e:
            locked.append(str(e))
            continue
        if signer.public_key.keyid in ids and all(
            signer.public_key.keyid != other.public_key.keyid for other in found
        ):
            found.append(signer)
    if not found:
        why = f" ({locked[0]})" if locked else ""
        raise CliError(f"no key for {what} in {folder}{why}; name key files with --key")
    return found


def public_id(path: Path) -> str | None:
    """Return the key id noted beside a key file when it was made, if it was."""
    try:
        return path.with_suffix(".keyid").read_text().strip()
    except OSError:
        return None


def make_key(path: Path, passphrase: str | None) -> Signer:
    """Make a key file and note its public id beside it, so that it is found without unlocking."""
    signer = signing.generate_key(path, passphrase)
    path.with_suffix(".keyid").write_text(signer.public_key.keyid + "\n")
    return signer
