"""`pilotwave keys reader`: the key of somebody who reads devices' logs and captured cases."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from pilotwave_cli import output
from pilotwave_cli.config import keys_dir
from pilotwave_cli.errors import CliError
from pilotwave_cli.keys.key_options import PassphraseFile
from pilotwave_cli.keys.keyfiles import Passphrases
from pilotwave_protocol.sealing import public_hex

FILE = "reader.pem"


def make_reader(
    out: Annotated[
        Path | None, typer.Option("--out", help="The key file. [reader.pem among your keys]")
    ] = None,
    plain: Annotated[
        bool, typer.Option("--plain", help="No passphrase; the file gets mode 0600.")
    ] = False,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Make the key that opens devices' logs and captured cases, and print its public half."""
    path = out or keys_dir() / FILE
    passphrase = None if plain else Passphrases(passphrase_file).choose()
    key = X25519PrivateKey.generate()
    locked = BestAvailableEncryption(passphrase.encode()) if passphrase else NoEncryption()
    _write(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, locked))
    output.say(f"{path}: keep it; whoever has it can read what devices send you")
    output.say("devices whose owners add this to `readers` in [diagnostics] of agent.toml answer,")
    output.say("and those with it as `reader` in [capture] send captured cases:")
    print(public_hex(key))


def _write(path: Path, pem: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
            out.write(pem)
            out.flush()
            os.fsync(out.fileno())
    except FileExistsError:
        raise CliError(f"{path} is there already; name another file with --out") from None
    except OSError as e:
        raise CliError(f"{path}: cannot be written: {e.strerror}") from e


def load_reader(path: Path | None, ask: Passphrases) -> X25519PrivateKey:
    """Load a reader's key, or raise `CliError`."""
    where = path or keys_dir() / FILE
    try:
        pem = where.read_bytes()
    except FileNotFoundError:
        raise CliError(f"{where}: no such file; `pilotwave keys reader` makes one") from None
    except OSError as e:
        raise CliError(f"{where}: cannot be read: {e.strerror}") from e
    try:
        key = _unlocked(pem, where, ask)
    except ValueError as e:
        raise CliError(f"{where}: not a key in PEM, or another passphrase") from e
    if not isinstance(key, X25519PrivateKey):
        raise CliError(f"{where}: expected a reader's key (X25519); this one signs")
    return key


def _unlocked(pem: bytes, where: Path, ask: Passphrases) -> object:
    try:
        return load_pem_private_key(pem, None)
    except TypeError:  # it has a passphrase
        passphrase = ask(str(where))
        if passphrase is None:
            raise CliError(
                f"{where} has a passphrase: give it (--passphrase-file, PILOTWAVE_PASSPHRASE)"
            ) from None
        return load_pem_private_key(pem, passphrase.encode())
