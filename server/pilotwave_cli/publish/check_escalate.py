"""Look into `escalate.json` before it is signed: devices would pass over one that they cannot
follow, and no input would ever be escalated."""

from __future__ import annotations

from pathlib import Path

from pilotwave_cli.errors import CliError
from pilotwave_protocol import sniff
from pilotwave_protocol.errors import ProtocolError
from pilotwave_protocol.escalate import ESCALATE, UINT8, parse_escalate

_ADVICE = f"write {ESCALATE} with pilotwave calibrate"


def check_escalate(path: Path, found: sniff.Sniffed) -> None:
    """Raise `CliError` unless the file is one, and fits the model beside it."""
    try:
        said = parse_escalate(path.read_bytes())
    except ProtocolError as e:
        raise CliError(f"{path}: {e}; {_ADVICE}") from e
    outputs = [t.name for t in found.outputs if t.name]
    if outputs and said.output not in outputs:
        have = ", ".join(outputs)
        raise CliError(f"{path}: output: the model has {have}; got {said.output}; {_ADVICE}")
    floats = [t.name for t in found.inputs if t.dtype.startswith("float")]
    if said.encode == UINT8 and found.inputs and not floats:
        raise CliError(f"{path}: encode: {UINT8} is for floats; the model takes none")
