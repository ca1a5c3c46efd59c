"""`pilotwave versions`: look at releases, yank (publisher), deny (operator)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from tuf.api.metadata import Metadata, Targets

from pilotwave_cli import output
from pilotwave_cli.client import connect
from pilotwave_cli.documents import now
from pilotwave_cli.keyfiles import Passphrases
from pilotwave_cli.keys import KeyFiles, PassphraseFile
from pilotwave_cli.models import show_versions
from pilotwave_cli.output import Json
from pilotwave_cli.publish import load_signers, submit
from pilotwave_protocol import names, signing

cli = typer.Typer(help="Versions: list, look, yank, deny.", no_args_is_help=True)
Model = Annotated[str, typer.Argument(help="The model.")]
Version = Annotated[str, typer.Argument(help="The version.")]
Reason = Annotated[str, typer.Option("--reason", help="Why; devices and operators are shown it.")]


@cli.command("list")
def list_(model: Model, as_json: Json = False) -> None:
    """List a model's versions, newest first."""
    with connect() as api:
        rows = list(api.pages(f"/models/{names.check_model(model)}/versions"))
    if as_json:
        output.show_json(rows)
    else:
        show_versions(model, rows)


@cli.command("show")
def show(model: Model, version: Version, as_json: Json = False) -> None:
    """Show one version: variants, files, who signed it."""
    path = f"/models/{names.check_model(model)}/versions/{names.check_version(version)}"
    with connect() as api:
        found = api.get(path)
    if as_json:
        output.show_json(found)
        return
    variants = found.pop("variants")
    output.facts(f"{model} {version}", found.items())
    for variant in variants:
        files = variant.pop("files")
        output.facts(f"variant {variant['name']}", variant.items())
        columns: list[output.Column] = [
            ("file", "path"),
            ("size", lambda r: output.size(r["size"])),
            ("sha256", "sha256"),
        ]
        output.table("", files, columns)


@cli.command("yank")
def yank(
    model: Model,
    version: Version,
    reason: Reason,
    key: KeyFiles = None,
    folder: Annotated[Path | None, typer.Option("--dir", help="Folder of the keys.")] = None,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Sign that a version must not be used any more; devices remember that for ever."""
    names.check_version(version)

    def change(role: Metadata[Targets]) -> None:
        signing.yank(role.signed, model, version, reason=reason, now=now())

    with connect() as api:
        signers = load_signers(
            api, names.check_model(model), key, folder, Passphrases(passphrase_file)
        )
        submit(api, model, signers, change)
    output.say(f"{model} {version} is yanked; devices that run it leave it")


@cli.command("deny")
def deny(model: Model, version: Version, reason: Reason) -> None:
    """Stop offering a version to anyone, at once and without a key."""
    path = f"/models/{names.check_model(model)}/versions/{names.check_version(version)}/deny"
    with connect() as api:
        api.post(path, {"reason": reason})
    output.say(f"{model} {version} is denied; it is offered to nobody")


@cli.command("undeny")
def undeny(model: Model, version: Version) -> None:
    """Let a denied version be offered again."""
    path = f"/models/{names.check_model(model)}/versions/{names.check_version(version)}/deny"
    with connect() as api:
        api.delete(path)
    output.say(f"{model} {version} may be offered again")
