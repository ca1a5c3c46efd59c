"""Look into a reference before it is signed: devices pass over one that they cannot read."""

from __future__ import annotations

import json
from pathlib import Path

from pilotwave_cli.errors import CliError
from pilotwave_protocol import sniff
from pilotwave_protocol.reference import MAX_REFERENCE_BYTES, BadReference, parse_reference

_SCHEMAS = "pilotwave/reference/"


def check_reference(path: Path, found: sniff.Sniffed) -> None:
    """Raise `CliError` unless a file of this name is a reference of the model, or of something
    else altogether."""
    if not _means_to_be_one(path):
        return
    try:
        reference = parse_reference(path.read_bytes())
    except BadReference as e:
        anew = f"`pilotwave reference {path.parent} --inputs data.npz` makes it anew"
        raise CliError(f"{path}: {e}; {anew}") from e
    output = reference.confidence.output if reference.confidence else None
    known = [tensor.name for tensor in found.outputs]
    if output is not None and all(known) and known and output not in known:
        raise CliError(f"{path}: the model has no output {output}: it is another model's reference")


def _means_to_be_one(path: Path) -> bool:
    if path.stat().st_size > MAX_REFERENCE_BYTES:
        return False
    try:
        said = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return False
    return isinstance(said, dict) and str(said.get("schema", "")).startswith(_SCHEMAS)
