"""`pilotwave deltas`: what the server made so that updates are small, and what came of it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated, Any

import typer

from pilotwave_cli import output
from pilotwave_cli.client import Api, connect
from pilotwave_cli.errors import Failed
from pilotwave_cli.output import Json
from pilotwave_protocol.digest import EMPTY_SHA256

cli = typer.Typer(
    help="Deltas between files of versions (docs/small-updates.md).", no_args_is_help=True
)
Digest = Annotated[
    str, typer.Argument(help="A file's SHA-256, or its first 8 or more digits; `-` is no file.")
]
_DIGITS = re.compile("[0-9a-f]{8,64}")
SHORT = 12


@cli.command("list")
def list_(
    model: Annotated[str | None, typer.Option(help="Of this model only.")] = None,
    state: Annotated[
        str | None, typer.Option(help="waiting, ready, useless or failed; default: all.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List the deltas the fleet needs and what each saves."""
    with connect() as api:
        rows = list(api.pages("/deltas", model=model, state=state))
    columns: list[output.Column] = [
        ("model", "model"),
        ("from", lambda r: _short(r["from_sha256"])),
        ("to", lambda r: _short(r["to_sha256"])),
        ("state", "state"),
        ("whole file", lambda r: output.size(r["full_size"])),
        ("delta", lambda r: output.size(r["size"])),
        ("of it", _part),
        ("made", lambda r: output.when(r["finished_at"]) if r["finished_at"] else "-"),
    ]
    output.table("Deltas", rows, columns, as_json=as_json)


@cli.command("show")
def show(old: Digest, new: Digest, as_json: Json = False) -> None:
    """Show one delta, from one file to another."""
    with connect() as api:
        found = _found(api, old, new)
    if as_json:
        output.show_json(found)
        return
    says = {
        "waiting": "is being made",
        "ready": f"has {output.size(found['size'])}, {_part(found)} of the whole file",
        "useless": f"would be {output.size(found['size'])}: it saves too little to be offered",
        "failed": f"could not be made: {output.plain(found['detail'])}",
    }
    output.say(f"the delta of {output.plain(found['model'])} {says.get(found['state'], '?')}")
    for word, key in (("from", "from_sha256"), ("to", "to_sha256"), ("whole", "full_size")):
        output.say(f"  {word:5}  {found[key]}")
    output.say(f"  noted {output.when(found['created_at'])}")


@cli.command("again")
def again(old: Digest, new: Digest, as_json: Json = False) -> None:
    """Retry a delta that failed."""
    with connect() as api:
        row = _found(api, old, new)
        made = api.post(f"/deltas/{row['from_sha256']}/{row['to_sha256']}/again")
    if as_json:
        output.show_json(made)
    else:
        output.say(f"the delta of {output.plain(made['model'])} is {made['state']}")


def _found(api: Api, old: str, new: str) -> Any:
    """Return the delta whose digests begin so; only one may."""
    starts = [EMPTY_SHA256 if digits == "-" else digits.lower() for digits in (old, new)]
    for digits in starts:
        if not _DIGITS.fullmatch(digits):
            raise Failed(f"expected 8 to 64 hexadecimal digits or `-`; got {output.plain(digits)}")
    rows = [r for r in api.pages("/deltas") if _begin(r, starts)]
    if len(rows) != 1:
        raise Failed(f"{len(rows) or 'no'} deltas go from {old} to {new}: see `deltas list`")
    return rows[0]


def _begin(row: Any, starts: Iterable[str]) -> bool:
    digests = (row["from_sha256"], row["to_sha256"])
    return all(d.startswith(s) for d, s in zip(digests, starts, strict=True))


def _short(sha256: str) -> str:
    return "(nothing)" if sha256 == EMPTY_SHA256 else sha256[:SHORT]


def _part(row: Any) -> str:
    if row["size"] is None or not row["full_size"]:
        return "-"
    return f"{100 * row['size'] / row['full_size']:.1f} %"
