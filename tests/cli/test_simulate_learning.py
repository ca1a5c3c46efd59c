"""Simulated devices take part in training plans: of a real server, signed by their publisher."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pilotwave_cli.simulate.learning import SPREAD, class_means
from tests.cli.operator import Operator
from tests.protocol.learning.models import classifier

pytestmark = [pytest.mark.long, pytest.mark.timeout(400)]
FEATURES, CLASSES = 12, 3
LIAR = "000009"
PROFILE = """\
poll: 1
check_in: 1
selftest: 0.1
probation: 0.1
slices: [{name: all, share: 1, latency_ms: 0, mbit_s: 1000}]
"""


def own_data(rows: int, seed: int) -> dict[str, np.ndarray]:
    """What the publisher has of the world that simulated devices live in."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, CLASSES, rows)
    means = class_means(FEATURES, CLASSES)[labels]
    x = np.maximum(means + random.normal(0, SPREAD, means.shape), 0)
    return {"x": x.astype(np.float32), "labels": labels}


@pytest.fixture
def published(pw: Operator, model: str, name: str, tmp_path: Path) -> str:
    """A version whose embedding is its input, in a group of the devices to be simulated."""
    head = np.random.default_rng(1).normal(size=(FEATURES + 1, CLASSES))
    hidden = np.eye(FEATURES), np.zeros(FEATURES)
    (tmp_path / "model.onnx").write_bytes(classifier(hidden, head))
    np.savez(tmp_path / "own.npz", **own_data(300, 1))
    files = ("--variant", f"onnx-fp32={tmp_path / 'model.onnx'}", "--no-try")
    pw("publish", model, "1.0.0", *files, "--key", pw.keys / "publisher.pem")
    pw("groups", "create", name, "--selector", f"simulated={name}")
    pw("assign", "--yes", model, "1.0.0", "--group", name)
    return name


def until(condition: Callable[[], bool], what: Callable[[], object]) -> None:
    ends = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < ends, what()
        time.sleep(0.5)


def test_those_that_learn_answer_once_and_a_liar_is_left_out(
    pw: Operator, model: str, published: str, tmp_path: Path
) -> None:
    (tmp_path / "profile.yaml").write_text(PROFILE)
    out = tmp_path / "account.json"
    told = ("--devices", "10", "--profile", tmp_path / "profile.yaml", "--prefix", published)
    learn = ("--learn", "80%", "--learn-liars", "12.5%", "--seed", "7", "--keep")
    trusts = ("--root", pw.keys / "root.json", "--json")
    simulated = pw.start("simulate", *told, *learn, *trusts, out=out)
    of = ("devices", "list", "--group", published, "--model", model, "--version", "1.0.0")
    until(lambda: len(pw.json(*of)) == 10, lambda: out.read_text())

    base = ("--base", "1.0.0", "--variant", "onnx-fp32", "--file", tmp_path / "model.onnx")
    asked = ("--embedding", "active", "--evaluate", tmp_path / "own.npz", "--least-devices", "3")
    pw("learn", "plan", model, "autumn-1", *base, *asked, "--key", pw.keys / "publisher.pem")
    pw("learn", "start", model, "autumn-1", "--group", published)
    status: Callable[[], dict[str, Any]] = lambda: pw.json("learn", "status", model, "autumn-1")  # noqa: E731
    until(lambda: status()["round"]["devices"] == 8, status)
    time.sleep(3)  # each has checked in some more times
    pw("learn", "end", model, "autumn-1", "--yes")
    os.kill(simulated.pid, signal.SIGINT)
    assert simulated.end(seconds=60) == 0

    found = status()
    assert found["state"] == "completed"
    gone = [u["device"] for u in found["updates"] if u["gain"] is not None]
    assert gone == [f"{published}-{LIAR}"]
    assert found["round"]["right"] > 0.9
    counts = json.loads(out.read_text())["counts"]
    assert counts["update_204"] == 8
    assert not [key for key in counts if key.startswith(("plan_", "refused"))]


def test_a_share_that_is_none_is_refused(pw: Operator) -> None:
    line = pw.run("simulate", "--devices", "1", "--for", "1s", "--learn", "120%").stderr
    assert "--learn: expected a share such as 1%" in line
