"""`pilotwave devices logs`: a device's last log lines and its state, opened here alone.

The server passes the wish on and keeps the sealed answer; the reader's key never leaves this
machine. That the device made the answer is checked against the key id that the server shows for it.
"""

from __future__ import annotations

import json
import time
import zlib
from pathlib import Path
from typing import Annotated, Any

import typer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from pilotwave_cli import output
from pilotwave_cli.client import Api, connect
from pilotwave_cli.device_models import cli as cli
from pilotwave_cli.devices import Device
from pilotwave_cli.durations import Duration
from pilotwave_cli.errors import CliError, Failed
from pilotwave_cli.keys.key_options import PassphraseFile
from pilotwave_cli.keys.keyfiles import Passphrases
from pilotwave_cli.keys.reader import load_reader
from pilotwave_cli.output import Json
from pilotwave_protocol import dsse, names
from pilotwave_protocol.errors import ProtocolError, SealingError
from pilotwave_protocol.messages.diagnostics import (
    DIAGNOSTICS_TYPE,
    MAX_DIAGNOSTICS_BYTES,
    Diagnostics,
    parse_diagnostics,
)
from pilotwave_protocol.sealing import public_hex, sealed_about, unseal

MOST_BYTES = 32 << 20
LOOK_EVERY_S = 1.0


@cli.command("logs")
def logs(
    device: Device,
    lines: Annotated[int, typer.Option(min=0, max=100_000, help="Show at most this many.")] = 200,
    wait: Annotated[str, typer.Option(help="How long to wait for the answer.")] = "30m",
    last: Annotated[
        bool, typer.Option("--last", help="Ask nothing: show the newest answer that came.")
    ] = False,
    save: Annotated[
        Path | None, typer.Option(help="Write all of it to this file, as JSON.")
    ] = None,
    key: Annotated[
        Path | None, typer.Option("--key", help="The reader's key. [reader.pem among your keys]")
    ] = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Ask a device for its log and state; it answers with its next check-in."""
    name, patience_s = names.check_device(device), Duration.parse(wait).total_seconds()
    reader = load_reader(key, Passphrases(passphrase_file))
    path = f"/devices/{name}/diagnostics"
    with connect() as api:
        keyid = api.get(f"/devices/{name}")["keyid"]
        number = _newest(api, path, name) if last else _ask(api, path, reader, patience_s)
        raw = api.send("GET", f"/api/v1{path}/{number}").content
    found = _opened(raw, name, keyid, reader)
    if save is not None:
        _save(save, found)
    if as_json:
        output.show_json(found)
    else:
        _show(name, found, lines)


def _newest(api: Api, path: str, device: str) -> int:
    for row in api.pages(path, most=100):
        if row["state"] == "answered":
            return int(row["id"])
    raise Failed(f"{device} has answered nothing within the last week")


def _ask(api: Api, path: str, reader: X25519PrivateKey, patience_s: float) -> int:
    """Ask, and wait for the answer; returns its number."""
    number = int(api.post(path, {"reader": public_hex(reader)})["id"])
    output.warn("asked; the device answers after its next check-in")
    ends = time.monotonic() + patience_s
    while time.monotonic() < ends:
        mine = [row for row in api.pages(path, most=20) if row["id"] == number]
        match mine[0]["state"] if mine else "replaced":
            case "answered":
                return number
            case "refused":
                raise Failed(f"the device refused: {mine[0]['detail']}")
            case "replaced":
                raise Failed("somebody else asked or withdrew the question meanwhile; ask again")
        time.sleep(LOOK_EVERY_S)
    raise Failed("no answer yet; once the device has checked in, --last shows it")


def _opened(raw: bytes, device: str, keyid: str, reader: X25519PrivateKey) -> dict[str, Any]:
    """Check who made the answer, and open it."""
    try:
        found = _signed(raw, device, keyid)
        about = sealed_about(found.fleet, device, found.wish.id)
        packed = unseal(found.sealed, reader, about=about)
        opening = zlib.decompressobj()
        plain = opening.decompress(packed, MOST_BYTES)
        if opening.unconsumed_tail:
            raise Failed(f"the answer of {device} is larger than {output.size(MOST_BYTES)}")
        shown = json.loads(plain)
    except (ProtocolError, SealingError, zlib.error, ValueError) as e:
        raise Failed(f"the answer of {device} cannot be opened: {e}") from e
    if not isinstance(shown, dict) or not isinstance(shown.get("lines"), list):
        raise Failed(f"the answer of {device} is not in a form that this command knows")
    return shown


def _signed(raw: bytes, device: str, keyid: str) -> Diagnostics:
    claimed = dsse.peek_unverified(
        raw, payload_type=DIAGNOSTICS_TYPE, max_bytes=MAX_DIAGNOSTICS_BYTES
    )
    found = parse_diagnostics(claimed.payload)
    public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(found.public_key))
    if dsse.keyid(public) != keyid or found.device != device:
        raise Failed(f"the answer is not signed by the key of {device}")
    dsse.verified(claimed, payload_type=DIAGNOSTICS_TYPE, keys={keyid: public})
    return found


def _save(path: Path, found: dict[str, Any]) -> None:
    try:
        path.write_text(json.dumps(found, indent=1) + "\n")
    except OSError as e:
        raise CliError(f"{path}: cannot be written: {e.strerror}") from e
    output.say(f"written to {path}")


def _show(device: str, found: dict[str, Any], most: int) -> None:
    hidden = {"lines", "status", "facts", "settings"}
    output.facts(device, [(k, str(v)) for k, v in found.items() if k not in hidden])
    for what in ("settings", "facts"):
        output.facts(what, [(k, str(v)) for k, v in dict(found.get(what, {})).items()])
    columns: list[output.Column] = [
        ("model", "model"),
        ("state", "state"),
        ("ordered", "ordered"),
        ("runs", lambda r: output.plain((r.get("current") or {}).get("version"))),
        ("reason", "reason"),
        ("detail", "detail"),
    ]
    output.table("models", dict(found.get("status", {})).get("models", []), columns)
    for line in found["lines"][-most:] if most else []:
        print("".join(c if c.isprintable() else " " for c in str(line)))
