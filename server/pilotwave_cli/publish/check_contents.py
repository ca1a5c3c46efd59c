"""What is about to leave this machine: nothing by mistake, nothing secret, and a list of it.

An empty path and a whole working folder are the usual mistakes. What looks like a private key or a
password is refused where each file is read, in `build_manifest.py`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import typer

from pilotwave_cli import output
from pilotwave_cli.errors import CliError
from pilotwave_cli.publish.build_manifest import Built
from pilotwave_protocol.secrets import secret_by_name


def check_choice(chosen: Mapping[str, str], *, all_files: bool) -> dict[str, Path]:
    """Return each variant's path, or raise `CliError` for one that is rarely meant."""
    return {name: _checked(name, given, all_files=all_files) for name, given in chosen.items()}


def _checked(name: str, given: str, *, all_files: bool) -> Path:
    if not given.strip():
        raise CliError(
            f"--variant {name}=: expected a file or folder after =; got nothing. "
            "Is a variable of your shell empty?"
        )
    path = Path(given)
    real = Path(os.path.realpath(path))
    here = Path(os.path.realpath(Path.cwd()))
    if not all_files and (real == here or real in here.parents):
        raise CliError(
            f"--variant {name}={given}: this is the folder you are in, or one above it, with all "
            "that lies there; name the model's own folder, or say --all-files if you mean it"
        )
    if word := secret_by_name(real.as_posix()) or secret_by_name(path.as_posix()):
        raise CliError(f"{given}: {word} is where secrets are kept; it is never shipped")
    return path


def list_files(built: Iterable[Built]) -> None:
    """Print each file that will be sent, with its size."""
    for variant in (b.variant for b in built):
        count = len(variant.files)
        what = f"{count} file{'s' if count > 1 else ''}, {output.size(variant.size)}"
        output.say(f"{variant.name}: {what}")
        for file in variant.files:
            output.say(f"  {output.plain(file.path)}  {output.size(file.size)}")


def files_as_json(built: Iterable[Built]) -> list[dict[str, Any]]:
    """Return each file that would be sent, for scripts."""
    return [
        {"variant": b.variant.name, "path": f.path, "size": f.size, "sha256": f.sha256}
        for b in built
        for f in b.variant.files
    ]


def ask(model: str, version: str, *, yes: bool) -> None:
    """Ask whether the listed files are meant, where a person sits at a terminal."""
    if yes or not (sys.stdin.isatty() and sys.stdout.isatty()):
        return
    if not typer.confirm(f"Sign and send these as {model} {version}? It can never be changed"):
        raise CliError("nothing was sent")
