"""Golden deltas: files that every applier of format 1 must turn into the same bytes for ever."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from types import ModuleType

import pytest

from pilotwave_protocol.delta import Applier, Header, arrays, lanes

GOLDEN = Path(__file__).parents[2] / "data" / "deltas"
CASES = json.loads((GOLDEN / "cases.json").read_text())


@pytest.mark.parametrize("math", [lanes, arrays], ids=["stdlib", "numpy"])
@pytest.mark.parametrize("case", CASES, ids=lambda c: c["delta"])
def test_golden_delta_gives_the_golden_file(case: dict[str, str], math: ModuleType) -> None:
    delta, old = (GOLDEN / case["delta"]).read_bytes(), (GOLDEN / case["old"]).read_bytes()
    out = io.BytesIO()
    header = Applier(io.BytesIO(delta), io.BytesIO(old), out.write, math=math).run()
    assert hashlib.sha256(out.getvalue()).hexdigest() == case["sha256"] == header.new_sha256


def test_header_reads_back() -> None:
    for case in CASES:
        raw = (GOLDEN / case["delta"]).read_bytes()[:100]
        assert Header.parse(raw).pack() == raw
