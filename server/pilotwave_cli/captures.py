"""`pilotwave captures`: cases that devices captured: list, open here, delete.

The server keeps them sealed; the reader's key never leaves this machine. That a device made a case
is checked against the key id that the server shows for it.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import typer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from pilotwave_cli import output
from pilotwave_cli.client import Api, connect
from pilotwave_cli.confirm import Yes, count, sure
from pilotwave_cli.errors import CliError, Failed
from pilotwave_cli.keys.key_options import PassphraseFile
from pilotwave_cli.keys.keyfiles import Passphrases
from pilotwave_cli.keys.reader import load_reader
from pilotwave_cli.output import Json
from pilotwave_protocol import dsse
from pilotwave_protocol.errors import ProtocolError, SealingError
from pilotwave_protocol.fields import format_time
from pilotwave_protocol.messages.case import (
    CASE_TYPE,
    MAX_STATEMENT_BYTES,
    Case,
    parse_case,
    split_case,
)
from pilotwave_protocol.sealing import public_hex, unseal

INDEX = "cases.jsonl"
MOST_BYTES = 256 << 20
cli = typer.Typer(no_args_is_help=True, help="Cases that devices captured for training.")
OfDevice = Annotated[str | None, typer.Option("--device", help="Only of this device.")]
OfModel = Annotated[str | None, typer.Option("--model", help="Only of this model.")]
OfReason = Annotated[str | None, typer.Option("--reason", help="Only captured for this reason.")]


@cli.command("list")
def list_cases(
    device: OfDevice = None,
    model: OfModel = None,
    reason: OfReason = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000)] = 50,
    as_json: Json = False,
) -> None:
    """List captured cases, newest first."""
    with connect() as api:
        found = api.pages("/captures", most=limit, device=device, model=model, reason=reason)
        rows = list(found)
    columns: list[output.Column] = [
        ("id", "id"),
        ("captured", lambda r: output.when(r["captured_at"])),
        ("device", "device"),
        ("model", "model"),
        ("version", "version"),
        ("reason", "reason"),
        ("size", lambda r: output.size(r["size"])),
    ]
    output.table("Captured cases", rows, columns, as_json=as_json)


@cli.command("pull")
def pull(
    to: Annotated[Path, typer.Option("--to", help="The folder to write into.")],
    device: OfDevice = None,
    model: OfModel = None,
    reason: OfReason = None,
    key: Annotated[
        Path | None, typer.Option("--key", help="The reader's key. [reader.pem among your keys]")
    ] = None,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Fetch the cases that your key opens, with `cases.jsonl` to fill labels into."""
    reader = load_reader(key, Passphrases(passphrase_file))
    with connect() as api, _Folder(to) as folder:

        @cache
        def keyid(name: str) -> str:
            return str(api.get(f"/devices/{name}")["keyid"])

        meant: dict[str, Any] = {"device": device, "model": model, "reason": reason}
        for row in api.pages("/captures", reader=public_hex(reader), **meant):
            if row["case_id"] not in folder.rows:
                _fetch(api, folder, row, keyid(row["device"]), reader)
    output.say(f"{count(folder.added, 'case')} more in {to}; {len(folder.rows)} in all")
    if folder.bad:
        raise Failed(f"{count(folder.bad, 'case')} cannot be opened or is not the device's own")


def _fetch(
    api: Api, folder: _Folder, row: dict[str, Any], keyid: str, reader: X25519PrivateKey
) -> None:
    raw = api.send("GET", f"/api/v1/captures/{row['id']}").content
    try:
        case, tensors = _opened(raw, row["device"], keyid, reader)
    except (ProtocolError, SealingError, Failed, zlib.error, ValueError) as e:
        output.warn(f"case {row['id']} of {row['device']}: {e}")
        folder.bad += 1
        return
    folder.add(case, tensors)


def _opened(raw: bytes, device: str, keyid: str, reader: X25519PrivateKey) -> tuple[Case, bytes]:
    """Check who made a case, and open it."""
    envelope, sealed = split_case(raw)
    claimed = dsse.peek_unverified(
        envelope, payload_type=CASE_TYPE, max_bytes=3 * MAX_STATEMENT_BYTES
    )
    case = parse_case(claimed.payload, sealed)
    public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(case.public_key))
    if dsse.keyid(public) != keyid or case.device != device:
        raise Failed(f"it is not signed by the key of {device}")
    dsse.verified(claimed, payload_type=CASE_TYPE, keys={keyid: public})
    opening = zlib.decompressobj()
    tensors = opening.decompress(unseal(sealed, reader, about=case.about()), MOST_BYTES)
    if opening.unconsumed_tail:
        raise Failed(f"it is larger than {output.size(MOST_BYTES)}")
    return case, tensors


@cli.command("delete")
def delete(
    id: Annotated[int | None, typer.Option("--id", help="This one, by `captures list`.")] = None,
    device: OfDevice = None,
    model: OfModel = None,
    reason: OfReason = None,
    every: Annotated[bool, typer.Option("--all", help="All that the server has.")] = False,
    yes: Yes = False,
) -> None:
    """Delete captured cases from the server."""
    meant = {"id": id, "device": device, "model": model, "reason": reason}
    told = {k: v for k, v in meant.items() if v is not None}
    if bool(told) is every:
        raise CliError("say which cases: --id, --device, --model, --reason, or --all")
    which = ", ".join(f"{k} {v}" for k, v in told.items()) or "all devices"
    sure(f"The captured cases of {which} go.", "Delete them?", yes=yes)
    with connect() as api:
        query = {**told, **({"all": True} if every else {})}
        gone = api.send("DELETE", "/api/v1/captures", params=query).json()["deleted"]
    output.say(f"deleted {count(gone, 'case')}")


class _Folder:
    """The folder of opened cases: a file for each, and an index with a line for each. Labels that
    were filled in stay; the index is written at one stroke, after the files that it names."""

    def __init__(self, path: Path) -> None:
        self.path, self.added, self.bad = path, 0, 0
        try:
            path.mkdir(parents=True, exist_ok=True)
            self.rows = {row["id"]: row for row in self._index()}
        except (OSError, ValueError, KeyError, TypeError) as e:
            raise CliError(f"{path / INDEX}: cannot be read: {e}") from e

    def _index(self) -> Iterator[dict[str, Any]]:
        if (self.path / INDEX).exists():
            for line in (self.path / INDEX).read_text().splitlines():
                yield json.loads(line)

    def __enter__(self) -> _Folder:
        return self

    def __exit__(self, *exc: object) -> None:
        if self.added:
            lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in self.rows.values())
            self._write(INDEX, "".join(lines).encode())

    def add(self, case: Case, tensors: bytes) -> None:
        """Write a case's file, and note it for the index."""
        name = f"{case.id}.safetensors"
        self._write(name, tensors)
        self.rows[case.id] = {
            "id": case.id,
            "file": name,
            "label": None,
            "device": case.device,
            "model": case.model,
            "version": case.version,
            "variant": case.variant,
            "reason": case.reason,
            "at": format_time(case.at),
        }
        self.added += 1

    def _write(self, name: str, data: bytes) -> None:
        temp = self.path / f".{name}.new"
        try:
            with temp.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temp.replace(self.path / name)
        except OSError as e:
            raise CliError(f"{self.path / name}: cannot be written: {e.strerror}") from e
