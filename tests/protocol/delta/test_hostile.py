"""Whatever a delta says: no crash, nothing beyond what it declared, nothing wrong accepted.

`bench/delta_fuzz.py` tries a million of these.
"""

from __future__ import annotations

import io
import json
import random
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from pilotwave_protocol.delta import Applier, Header, Mode, arrays, lanes
from pilotwave_protocol.delta.wire import varint
from pilotwave_protocol.delta.zstd import zstd
from pilotwave_protocol.errors import BadDelta
from tests.protocol.delta.hostile import mutated, outcome

GOLDEN = Path(__file__).parents[2] / "data" / "deltas"
CASES = json.loads((GOLDEN / "cases.json").read_text())


def golden(name: str) -> tuple[bytes, bytes, bytes]:
    delta, old = (GOLDEN / f"{name}.{end}" for end in ("delta", "old"))
    out = io.BytesIO()
    Applier(io.BytesIO(delta.read_bytes()), io.BytesIO(old.read_bytes()), out.write).run()
    return delta.read_bytes(), old.read_bytes(), out.getvalue()


@pytest.mark.parametrize("math", [lanes, arrays], ids=["stdlib", "numpy"])
@pytest.mark.parametrize("case", CASES, ids=lambda c: c["delta"])
def test_changed_deltas_are_refused_or_right(case: dict[str, str], math: ModuleType) -> None:
    delta, old, new = golden(case["delta"].removesuffix(".delta"))
    chance = random.Random(case["delta"])
    refused = sum(not outcome(mutated(delta, chance), old, new, math) for _ in range(150))
    assert refused > 75


def test_each_cut_delta_is_refused() -> None:
    delta, old, new = golden("float16")
    for end in range(0, len(delta), 7):
        assert not outcome(delta[:end], old, new, lanes)


def frame_delta(frame: bytes, size: int, window_log: int) -> bytes:
    header = Header(Mode.FRAME, "0" * 64, 0, "0" * 64, size, 0, window_log)
    return header.pack() + frame


def test_a_frame_that_grows_beyond_its_word_is_refused() -> None:
    """A few kilobytes that would become 64 MB are stopped at the size declared."""
    bomb = zstd.compress(bytes(64 << 20))
    made: list[int] = []
    for size in (1000, 64 << 10):
        applier = Applier(
            io.BytesIO(frame_delta(bomb, size, 20)), io.BytesIO(), lambda p: made.append(len(p))
        )
        with pytest.raises(BadDelta, match="declares"):
            applier.run()
    assert sum(made) == 0


def test_a_block_whose_stream_grows_is_refused() -> None:
    bomb = zstd.compress(bytes(16 << 20))
    body = varint(0) + bomb
    block = bytes((2,)) + varint(1000) + varint(len(body)) + bytes(4) + body
    header = Header(Mode.BLOCKS, "0" * 64, 0, "0" * 64, 1000, 1 << 18)
    with pytest.raises(BadDelta, match="more than the 1000 bytes"):
        Applier(io.BytesIO(header.pack() + block), io.BytesIO(), bytes).run()


def test_more_memory_than_allowed_is_refused_before_anything_is_read() -> None:
    delta, old, _ = golden("text")
    with pytest.raises(BadDelta, match="of memory, over 1000"):
        Applier(io.BytesIO(delta), io.BytesIO(old), bytes, max_memory=1000).run()


def test_an_old_file_of_another_size_is_refused() -> None:
    delta, old, _ = golden("float32")
    with pytest.raises(BadDelta, match="is for an old file of"):
        Applier(io.BytesIO(delta), io.BytesIO(old + b"x"), bytes).run()


def test_other_old_bytes_do_not_pass() -> None:
    delta, old, _ = golden("float32")
    other = old[:99] + bytes((old[99] ^ 1,)) + old[100:]
    with pytest.raises(BadDelta, match="checksum differs"):
        Applier(io.BytesIO(delta), io.BytesIO(other), bytes).run()


@pytest.mark.parametrize(
    "change",
    [{"block_size": 1 << 21}, {"block_size": 0}, {"new_size": 1 << 50}, {"window_log": 40}],
)
def test_headers_out_of_bounds_are_refused(change: dict[str, int]) -> None:
    header = Header(Mode.BLOCKS, "0" * 64, 0, "0" * 64, 10, 1 << 18)
    with pytest.raises(BadDelta):
        Header.parse(replace(header, **change).pack())  # type: ignore[arg-type]


def test_work_goes_on_at_the_first_block_that_is_not_whole(tmp_path: Path) -> None:
    """Cut after each block: what is on disk is kept, and the result is the same."""
    delta, old, new = golden("float64")
    for kept in range(0, len(new), 1999):
        path = tmp_path / "new"
        path.write_bytes(new[:kept] + b"torn")
        with path.open("r+b") as out, path.open("rb") as before:

            def cut(size: int, out: io.BufferedRandom = out) -> None:
                out.truncate(size)
                out.seek(size)

            applier = Applier(
                io.BytesIO(delta), io.BytesIO(old), out.write, kept=before, truncate=cut
            )
            applier.run()
        assert path.read_bytes() == new
        assert applier.resumed <= kept
        assert applier.resumed > 0 or kept < 30000
