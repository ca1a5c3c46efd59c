"""The options that commands share which use offline keys, each spelt and explained once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated

import typer

from pilotwave_cli.config import keys_dir
from pilotwave_cli.keys.keyfiles import Passphrases

Dir = Annotated[Path | None, typer.Option("--dir", help="Folder of the keys. [PILOTWAVE_KEYS]")]
PassphraseFile = Annotated[
    Path | None, typer.Option(help="File with the passphrase (or PILOTWAVE_PASSPHRASE).")
]
KeyFiles = Annotated[
    list[str] | None, typer.Option("--key", help="Key file, key reference or URI; repeatable.")
]
Out = Annotated[
    Path | None,
    typer.Option("--out", help="If signatures are missing, write the draft to this file."),
]


@dataclass(frozen=True)
class SigningOptions:
    """Where keys and passphrases are found, and where a draft that lacks signatures goes."""

    folder: Dir = None
    passphrase_file: PassphraseFile = None
    out: Out = None

    @property
    def keys(self) -> Path:
        """Return the folder of the keys."""
        return self.folder or keys_dir()

    def spare(self, what: str) -> Path:
        """Return where a draft is kept when no `--out` was given."""
        return self.keys / f"{what}.draft.json"

    @cached_property
    def ask(self) -> Passphrases:
        """Return where passphrases come from; what was typed is kept."""
        return Passphrases(self.passphrase_file)
