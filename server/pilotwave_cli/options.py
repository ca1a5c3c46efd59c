"""Options that several commands share, so that each is spelt and explained once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

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
