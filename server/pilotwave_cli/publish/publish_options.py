"""What `pilotwave publish` can be told, beside what holds for one variant."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from pilotwave_cli.durations import pairs
from pilotwave_cli.errors import CliError
from pilotwave_cli.keys.key_options import KeyFiles
from pilotwave_cli.publish.variant_options import EACH, Words
from pilotwave_protocol import names


@dataclass(frozen=True)
class WhatOptions:
    """What is published, signed with which keys, and what people read of it."""

    model: Annotated[str, typer.Argument(help="The model.")]
    version: Annotated[str, typer.Argument(help="The new version: PEP 440 or SemVer.")]
    variant: Annotated[
        Words, typer.Option("--variant", help="NAME=FILE or FOLDER; repeatable.")
    ] = None
    optimized: Annotated[
        Path | None,
        typer.Option("--from", help="All that optimize accepted, from its folder."),
    ] = None
    key: KeyFiles = None
    description: Annotated[str, typer.Option(help="Description, shown to people.")] = ""
    metric: Annotated[Words, typer.Option("--metric", help="k=v; repeatable.")] = None
    source: Annotated[Words, typer.Option("--source", help="k=v; repeatable.")] = None

    def sources(self) -> dict[str, str]:
        """Return what was named for each variant, or raise `CliError` or `BadName`."""
        names.check_model(self.model)
        names.check_version(self.version)
        if bool(self.variant) == bool(self.optimized):
            raise CliError("expected --variant NAME=PATH, or --from with a folder of optimize")
        if self.variant is None:
            return {}
        chosen = pairs(self.variant, "--variant", "NAME=PATH, such as onnx=build/model.onnx")
        if len(chosen) != len(self.variant):
            raise CliError("--variant: expected each name once")
        return chosen


@dataclass(frozen=True)
class SendOptions:
    """What may be sent, and after which checks."""

    not_secret: Annotated[
        Words, typer.Option(help=f"A file that only looks like it holds a password. {EACH}")
    ] = None
    all_files: Annotated[
        bool, typer.Option("--all-files", help="Allow the folder you are in, or one above it.")
    ] = False
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List what would be sent, and send nothing.")
    ] = False
    no_try: Annotated[bool, typer.Option("--no-try", help="Skip the self-test before sending.")] = (
        False
    )
    yes: Annotated[bool, typer.Option("--yes", help="Send without asking.")] = False
