"""Captured cases at the application: the owner's rules, sealed before they touch the disk, whole or
not at all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from safetensors.numpy import load

from pilotwave_agent.live import LiveModel
from pilotwave_agent.live.capture import MAX_WAITING
from pilotwave_agent.live.capture_rules import CaptureRules
from pilotwave_protocol.errors import SealingError
from pilotwave_protocol.messages.case import Case, parse_case, split_case
from pilotwave_protocol.sealing import public_hex, unseal
from tests.peers.shelf import Shelf, X

KEY = X25519PrivateKey.generate()
RULES = CaptureRules(
    fleet="acme",
    device="cam-1",
    public_key="ab" * 32,
    reader=public_hex(KEY),
    reasons=("low_score", "uniform"),
    below=0.5,
    share=0.0,
    max_case_bytes=1 << 20,
    max_bytes=64 << 20,
    max_bytes_per_day=16 << 20,
)
SOON_S = 30.0


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    (tmp_path / "live").mkdir()
    made = Shelf(tmp_path)
    made.serve(1)
    return made


def tell(shelf: Shelf, **changes: object) -> None:
    shelf.layout.capture_rules.write_bytes(replace(RULES, **changes).to_bytes())  # type: ignore[arg-type]


def opened(shelf: Shelf) -> LiveModel:
    return LiveModel("detector", data=shelf.data, app="test", wait_s=SOON_S)


def files(shelf: Shelf) -> list[Path]:
    return sorted((shelf.data / "live" / "detector").glob("*.case"))


def open_case(path: Path, key: X25519PrivateKey = KEY) -> tuple[Case, dict[str, np.ndarray]]:
    statement, sealed = split_case(path.read_bytes())
    case = parse_case(statement, sealed)
    return case, load(zlib.decompress(unseal(sealed, key, about=case.about())))


def test_a_low_score_has_the_inputs_captured_as_they_were_at_the_call(shelf: Shelf) -> None:
    tell(shelf)
    buffer = np.arange(4, dtype=np.float32).reshape(1, 4)
    with opened(shelf) as model:
        good, bad = model.run({"x": buffer}), model.run({"x": buffer})
        buffer[:] = -1.0  # the application fills its buffer with the next frame
        model.score(0.9, good)
        model.score(0.1, bad, metric="iou")  # another number than the score
        model.score(0.4)  # of no answer
        model.score(0.4, bad)
    (path,) = files(shelf)
    case, tensors = open_case(path)
    assert (case.model, case.version, case.variant) == ("detector", "1.1.0", "onnx")
    assert (case.reason, case.device, path.stem) == ("low_score", "cam-1", case.id)
    assert tensors["input.x"].tolist() == [[0.0, 1.0, 2.0, 3.0]]
    assert set(tensors["output.y"].ravel().tolist()) == {1.0}


def test_a_uniform_share_is_captured_without_any_score(shelf: Shelf) -> None:
    tell(shelf, reasons=("uniform",), share=1.0)
    with opened(shelf) as model:
        assert model.run(X).inputs is None  # nothing else is kept of it
    (path,) = files(shelf)
    assert open_case(path)[0].reason == "uniform"


def test_nothing_on_the_disk_holds_the_inputs_and_no_other_key_opens_them(shelf: Shelf) -> None:
    tell(shelf, share=1.0)
    known = np.frombuffer(b"a face that nobody may s", np.float32).reshape(1, -1)[:, :4]
    with opened(shelf) as model:
        model.run({"x": known})
    (path,) = files(shelf)
    assert open_case(path)[1]["input.x"].tobytes() == known.tobytes()
    statement, sealed = split_case(path.read_bytes())
    packed = unseal(sealed, KEY, about=parse_case(statement, sealed).about())
    for found in shelf.data.rglob("*"):
        if found.is_file():
            content = found.read_bytes()
            assert known.tobytes() not in content, found
            assert packed not in content, found  # compressed, as it was before it was sealed
    with pytest.raises(SealingError):
        open_case(path, X25519PrivateKey.generate())
    raw = path.read_bytes()
    path.write_bytes(raw.replace(b"cam-1", b"cam-2", 1))  # said to be another device's
    with pytest.raises(SealingError):
        open_case(path)


@pytest.mark.parametrize(
    "changes",
    [
        {"max_case_bytes": 16},
        {"max_bytes": 16},
        {"max_bytes_per_day": 16},
        {"reasons": ("drift",)},  # of a later agent
    ],
)
def test_what_the_owner_does_not_allow_is_not_captured(
    shelf: Shelf, changes: dict[str, object]
) -> None:
    tell(shelf, share=1.0, **changes)
    with opened(shelf) as model:
        model.score(0.0, model.run(X))
    assert files(shelf) == []


def test_without_a_word_of_the_owner_nothing_is_captured(shelf: Shelf) -> None:
    with opened(shelf) as model:
        answer = model.run(X)
        model.score(0.0, answer)
        assert answer.inputs is None
    assert files(shelf) == []


def test_a_flood_stays_within_the_budget_and_calls_do_not_wait(shelf: Shelf) -> None:
    day = 100_000
    tell(shelf, share=1.0, max_bytes_per_day=day)
    rng = np.random.default_rng(0)
    with opened(shelf) as model:
        begun = time.monotonic()
        for _ in range(4000):
            answer = model.run({"x": rng.random((1, 4), np.float32)})
            model.score(0.0, answer)
        took = time.monotonic() - begun
    found = files(shelf)
    assert 0 < len(found) <= MAX_WAITING
    assert sum(path.stat().st_size for path in found) <= day + len(found) * 1024
    assert took < 30


def test_hard_inputs_leave_the_uniform_share_its_part_of_the_day(shelf: Shelf) -> None:
    tell(shelf, max_bytes_per_day=4000, share=0.0)
    with opened(shelf) as model:
        for _ in range(40):
            model.score(0.0, model.run(X))
            time.sleep(0.01)
        hard = len(until_still(lambda: files(shelf)))
        tell(shelf, max_bytes_per_day=4000, share=1.0)
        model._capture._rules._look_at = 0.0
        for _ in range(40):
            model.run(X)
            time.sleep(0.01)
    reasons = [open_case(path)[0].reason for path in files(shelf)]
    assert reasons.count("low_score") == hard > 0
    assert reasons.count("uniform") > 0


def until_still(look: Callable[[], list[Path]]) -> list[Path]:
    before, found = None, look()
    while before != found:
        time.sleep(0.3)
        before, found = found, look()
    return found


APPLICATION = """
import sys
import numpy as np
from pilotwave_agent.live import LiveModel
model = LiveModel("detector", data=sys.argv[1], app="test", wait_s=30)
print("serves", flush=True)
while True:
    model.run({"x": np.random.default_rng().random((1, 4), np.float32)})
"""


def test_an_application_that_is_killed_leaves_no_half_a_case(shelf: Shelf) -> None:
    tell(shelf, share=1.0, max_bytes_per_day=1 << 30)
    seen: set[Path] = set()
    for n in range(8):
        with subprocess.Popen(
            [sys.executable, "-c", APPLICATION, str(shelf.data)], stdout=subprocess.PIPE
        ) as process:
            assert process.stdout
            assert process.stdout.readline() == b"serves\n"
            ends = time.monotonic() + SOON_S
            while len(files(shelf)) <= n:
                assert time.monotonic() < ends, "nothing was captured"
            os.kill(process.pid, signal.SIGKILL)
        for path in files(shelf):
            open_case(path)
        seen |= set(files(shelf))
        for path in files(shelf):
            path.unlink()
    assert seen
