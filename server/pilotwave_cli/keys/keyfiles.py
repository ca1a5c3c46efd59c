"""Offline keys: which there are, their passphrases, loading those that a document needs.

A key is named by a PEM file, by a key reference (JSON: a KMS or PKCS#11 key and its public half),
or by the bare URI of such a key where its public half is known from the documents at hand.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import sys
from collections.abc import Iterable, Sequence
from getpass import getpass
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from securesystemslib.exceptions import Error as SecuresystemslibError
from securesystemslib.exceptions import UnsupportedLibraryError
from securesystemslib.signer import SIGNER_FOR_URI_SCHEME, Key, Signer, SSlibKey

from pilotwave_cli.errors import CliError
from pilotwave_protocol import signing, strictjson
from pilotwave_protocol.errors import BadJson, SigningError

PROBE = b"pilotwave: is this the key?"
MAX_REFERENCE = 64 << 10
_TRIED_FIRST = (
    "password",
    "passwort",
    "passphrase",
    "qwerty",
    "qwertz",
    "asdf",
    "letmein",
    "secret",
)


class Passphrases:
    """Where passphrases come from: a file, PILOTWAVE_PASSPHRASE, or the person at the terminal."""

    def __init__(self, file: Path | None = None) -> None:
        # an empty one would make a key that looks locked and is not
        self._given: str | None = os.environ.get("PILOTWAVE_PASSPHRASE") or None
        self._asked: dict[str, str] = {}
        if file is not None:
            try:
                self._given = file.read_text("utf-8").rstrip("\r\n")
            except OSError as e:
                raise CliError(f"{file}: cannot be read: {e.strerror}") from e
            except UnicodeDecodeError as e:
                raise CliError(f"{file}: expected a passphrase as UTF-8 text") from e
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
            return check_strength(self._given)
        if not sys.stdin.isatty():
            raise CliError("give a passphrase (--passphrase-file, PILOTWAVE_PASSPHRASE) or --plain")
        first = getpass("Passphrase for the new keys: ")
        if not first or first != getpass("Once more: "):
            raise CliError("expected the same passphrase twice, and not an empty one")
        return check_strength(first)


def check_strength(passphrase: str) -> str:
    """Return a passphrase for new keys, or raise `CliError` where it can be guessed in a day.

    A stolen key file is tried offline. Length is what counts; repeats and runs add none.
    """
    least, different = 12, 6
    told = _without_patterns(passphrase)
    if len(told) >= least and len(set(told)) >= different:
        return passphrase
    why = (
        f"has {len(passphrase)} characters"
        if len(passphrase) < least
        else "is a repeat, a sequence or one of those that are guessed first"
    )
    raise CliError(
        f"the passphrase {why}; expected {least} or more that nobody can guess, such as four words "
        "drawn by chance"
    )


def _without_patterns(text: str) -> str:
    """Return a passphrase without what adds nothing: repeats, runs, words that all try first."""
    text = re.sub("|".join(_TRIED_FIRST), "", text.casefold())
    text = re.sub(r"(.+?)\1+", r"\1", text)
    steps = [ord(b) - ord(a) for a, b in itertools.pairwise(text)]
    return "".join(
        c
        for i, c in enumerate(text)
        if i < 2 or steps[i - 1] != steps[i - 2] or abs(steps[i - 1]) > 1
    )


def load_keys(refs: Iterable[str], ask: Passphrases, known: Sequence[Key] = ()) -> list[Signer]:
    """Load each named key; a bare URI is one of the `known` public keys, or a `CliError`."""
    return [_load_key(ref, ask, known) for ref in refs]


def _load_key(ref: str, ask: Passphrases, known: Sequence[Key]) -> Signer:
    scheme = ref.partition(":")[0]
    if scheme in ("file", "file2") or scheme not in SIGNER_FOR_URI_SCHEME or Path(ref).exists():
        return signing.load_signer(ref, ask)
    if not known:
        raise CliError(
            f"{scheme}: the public half of this key is not known yet; "
            "make a key reference (`pilotwave keys reference URI --public-key PEM --out FILE`) and "
            "name that file"
        )
    for key in known:
        with contextlib.suppress(NotThisKey):
            return open_uri(ref, key, ask)
    raise CliError(f"{scheme}: this key is none of those that may sign here")


class NotThisKey(CliError):
    """The key behind a URI is another one than the public key it was tried with."""


def open_uri(uri: str, key: Key, ask: Passphrases) -> Signer:
    """Return the signer behind a URI after one test signature that `key` verifies."""
    scheme = uri.partition(":")[0]

    def secret(name: str) -> str:
        found = ask(f"{scheme} {name}")
        if not found:
            raise CliError(f"{scheme}: needs a {name}")
        return found

    try:
        signer = Signer.from_priv_key_uri(uri, key, secret)
        key.verify_signature(signer.sign(PROBE), PROBE)
    except CliError:
        raise
    except UnsupportedLibraryError as e:
        raise CliError(f"{scheme}: {e}") from e
    except (SecuresystemslibError, ValueError) as e:
        raise NotThisKey(f"{scheme}: the key behind this URI is another one ({e})") from e
    # what a KMS or token library raises is its own; to a person it is one failure
    except Exception as e:
        raise CliError(f"{scheme}: the key cannot be used: {e}") from e
    return signer


def make_reference(uri: str, public: Path, target: Path, ask: Passphrases) -> Key:
    """Write a key reference for a URI after one test signature, and return its public key."""
    try:
        crypto = load_pem_public_key(public.read_bytes())
        key: Key = SSlibKey.from_crypto(crypto)
    except OSError as e:
        raise CliError(f"{public}: cannot be read: {e.strerror}") from e
    except (ValueError, TypeError, UnsupportedAlgorithm, SecuresystemslibError) as e:
        raise CliError(f"{public}: expected a PEM public key (Ed25519, ECDSA or RSA)") from e
    if uri.partition(":")[0] not in SIGNER_FOR_URI_SCHEME:
        schemes = ", ".join(sorted(SIGNER_FOR_URI_SCHEME))
        raise CliError(f"expected the URI of a key, starting with one of {schemes}")
    open_uri(uri, key, ask)
    if target.exists():
        raise CliError(f"{target}: exists already; move it away first")
    data = {"uri": uri, "keyid": key.keyid, "key": key.to_dict()}
    target.write_text(json.dumps(data, indent=1) + "\n")
    return key


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
    """Return the id of a key file's public half where that is known without unlocking it."""
    try:
        if path.suffix == ".json":
            data = strictjson.loads(path.read_bytes(), max_bytes=MAX_REFERENCE)
            return str(data["keyid"])
        return path.with_suffix(".keyid").read_text().strip()
    except (OSError, BadJson, KeyError, TypeError, UnicodeDecodeError):
        return None


def make_key(path: Path, passphrase: str | None) -> Signer:
    """Make a key file and note its public id beside it, so that it is found without unlocking."""
    signer = signing.generate_key(path, passphrase)
    path.with_suffix(".keyid").write_text(signer.public_key.keyid + "\n")
    return signer
