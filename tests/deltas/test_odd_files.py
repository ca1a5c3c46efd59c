"""A delta never costs more than a kilobyte over zstd -19, with or without --patch-from."""

from __future__ import annotations

from pathlib import Path

import pytest

from pilotwave_protocol.delta import arrays
from pilotwave_protocol.delta.zstd import zstd
from tests.deltas.odd import MAKERS
from tests.deltas.pairs import applied, made

SLACK = 1000
OVER_THE_THRESHOLD = 600_000  # from here on the generator guesses what is worth trying
_P = zstd.CompressionParameter


def best_of_zstd(old: bytes, new: bytes) -> int:
    """As the program's `-19` and `-19 --patch-from=OLD --long` do it."""
    sizes = []
    for base in (b"", old) if len(old) >= 8 else (b"",):
        options: dict[int, int] = {_P.compression_level: 19}
        prefix = None
        if base:
            options[_P.window_log] = max((len(old) + len(new)).bit_length(), 10)
            options[_P.enable_long_distance_matching] = 1
            prefix = zstd.ZstdDict(base, is_raw=True).as_prefix
        packer = zstd.ZstdCompressor(options=options, zstd_dict=prefix)
        packer.set_pledged_input_size(len(new))
        sizes.append(len(packer.compress(new) + packer.flush()))
    return min(sizes)


def over(folder: Path, name: str, size: int) -> int:
    """Check the round trip; return by how much the delta is larger than zstd's best."""
    old, new = MAKERS[name](size)
    _, delta = made(folder, old, new)
    assert applied(delta, old, arrays) == new
    return len(delta) - best_of_zstd(old, new)


@pytest.mark.parametrize("name", MAKERS)
def test_small_odd_files_never_cost_a_kilobyte_over_zstd(tmp_path: Path, name: str) -> None:
    assert over(tmp_path, name, 60_000) <= SLACK


@pytest.mark.slow
@pytest.mark.parametrize("size", [OVER_THE_THRESHOLD, 3_000_000])
@pytest.mark.parametrize("name", MAKERS)
def test_larger_odd_files_never_cost_a_kilobyte_over_zstd(
    tmp_path: Path, name: str, size: int
) -> None:
    assert over(tmp_path, name, size) <= SLACK
