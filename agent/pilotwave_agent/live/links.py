"""Where an application finds a model: which version the links name, and what is said about it.

The agent makes a version's folder and its `about` file before a link names it, and neither ever
changes, so whatever a link has named can be opened without a lock.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pilotwave_protocol.reference import (
    MAX_REFERENCE_BYTES,
    REFERENCE,
    BadReference,
    Reference,
    parse_reference,
)

CURRENT, PREVIOUS, OVERLAY = "current", "previous", "overlay"


@dataclass(frozen=True)
class About:
    """What an application must know to open one version: `models/<model>/about/<folder>.json`."""

    model: str
    version: str
    variant: str
    sha256: str  # the signed manifest's
    runtime: str
    entrypoint: str
    precision: str = ""
    cases: str | None = None  # golden inputs among the files
    inputs: tuple[Mapping[str, Any], ...] = ()  # each {name, dtype, shape}
    outputs: tuple[Mapping[str, Any], ...] = ()
    compare: Mapping[str, Any] | None = None  # how its answers are laid beside another version's

    @staticmethod
    def parse(raw: bytes) -> About:
        """Read the file; keys that this release does not know are passed over."""
        found = json.loads(raw)
        return About(**{key: found[key] for key in About.__dataclass_fields__ if key in found})

    def to_bytes(self) -> bytes:
        """Write the file."""
        return json.dumps(asdict(self), indent=1).encode() + b"\n"


@dataclass(frozen=True)
class ModelLinks:
    """One model in the agent's data folder."""

    data: Path
    model: str

    @property
    def folder(self) -> Path:
        """The folder that holds the links; it appears with the model's first version."""
        return self.data / "models" / self.model

    @property
    def desk(self) -> Path:
        """The folder where applications tell the agent how they are."""
        return self.data / "live" / self.model

    @property
    def engines(self) -> Path:
        """Return the folder of what the agent compiled on this device (`runtimes.engines`)."""
        return self.data / "engines"

    def named_by(self, link: str) -> str | None:
        """Return the version folder's name that `current` or `previous` names; None if none."""
        try:
            return os.readlink(self.folder / link).rpartition("/")[2] or None
        except OSError:
            return None

    def files(self, name: str) -> Path:
        """Return the folder of a version's files."""
        return self.folder / "versions" / name

    def files_of(self, version: str) -> Path | None:
        """Return the folder of what `current` names, if that is this version."""
        name = self.named_by(CURRENT)
        try:
            return self.files(name) if name and self.about(name).version == version else None
        except (OSError, ValueError, TypeError):
            return None

    def about(self, name: str) -> About:
        """Return what is said about a version. Raises `OSError`, `ValueError`, `TypeError`."""
        return About.parse((self.folder / "about" / f"{name}.json").read_bytes())


def read_reference(files: Path) -> Reference | None:
    """Return the reference among a version's files; None for one that is not there or no such."""
    try:
        with (files / REFERENCE).open("rb") as file:
            return parse_reference(file.read(MAX_REFERENCE_BYTES + 1))
    except (OSError, BadReference):
        return None
