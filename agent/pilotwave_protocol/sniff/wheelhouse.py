"""Read the list of a wheelhouse: requirements of exact versions, each with its SHA-256 digests.

    pilotwave==0.2.0 --hash=sha256:…

That is pip's own form (`--require-hashes`) without its other options: no index, no URL, no path and
no other file can be named, so that nothing comes from anywhere but the folder.
https://pip.pypa.io/en/stable/topics/secure-installs/#hash-checking-mode
"""

from __future__ import annotations

import re

from pilotwave_protocol.sniff.errors import BadModel
from pilotwave_protocol.sniff.facts import Sniffed

_MOST_BYTES = 1 << 20
_HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")
_PIN = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]{0,127})==([A-Za-z0-9][A-Za-z0-9._+!-]{0,127})")
_CODE = "it is a program with its packages, and running it runs whatever they hold"


def is_wheelhouse(data: memoryview) -> bool:
    """Say whether a text could be meant as such a list."""
    return b"--hash=sha256:" in bytes(data[:_MOST_BYTES])


def read_wheelhouse(data: memoryview) -> Sniffed:
    """Describe the list; `details` are its packages and their versions. Raise BadModel where a line
    is no pin with digests."""
    if len(data) > _MOST_BYTES:
        raise BadModel(f"a list of packages has {_MOST_BYTES >> 20} MB at most")
    try:
        text = bytes(data).decode("ascii")
    except UnicodeDecodeError:
        raise BadModel("a list of packages is plain ASCII") from None
    found: dict[str, str | int] = {}
    for line in text.replace("\\\n", " ").split("\n"):
        words = line.partition(" #")[0].split()
        if not words or words[0].startswith("#"):
            continue
        pin = _PIN.fullmatch(words[0])
        if pin is None or len(words) < 2 or not all(map(_HASH.fullmatch, words[1:])):
            shown = ascii(line.strip())[:80]
            raise BadModel(f"expected NAME==VERSION --hash=sha256:… in each line; got {shown}")
        found[re.sub(r"[-_.]+", "-", pin[1]).lower()] = pin[2]
    if not found:
        raise BadModel("a list of packages names none")
    return Sniffed("wheelhouse", "wheelhouse", unsafe=_CODE, details=found)
