"""Each kind of bad model, from the publisher to the server's page about the device.

A real server, a real agent, real files. The server must hear each fault's own code and a sentence
about it, and the device must stay on the version that it runs.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from pilotwave_agent.identity import load_key
from pilotwave_cli.main import cli
from pilotwave_protocol.states import Reason
from tests.agent.runtimes.samples import MODELS, lay_out
from tests.e2e.fleet_of_one import FleetOfOne, fleet_of_one, wait_until

pytestmark = pytest.mark.timeout(300)

MODEL, GOOD = "detector", "1.0.0"
LIMITS = """
[selftest]
timeout_s = 60
cpu_s = 6
memory_mb = 512
"""


@dataclass(frozen=True)
class Fault:
    """A sample file (or the script of a program that tests itself), and what is said of it."""

    source: str
    reason: Reason
    words: str
    replace: tuple[str, str] = ("", "")
    options: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.reason.removeprefix('selftest_')}-{self.source.partition('.')[0]}"


EIM = ("--max-latency-ms", "20")
PROGRAM = ("--runtime", "command", "--entrypoint", "run")
FAULTS = [
    Fault("faulty_hang.onnx", Reason.SELFTEST_TIMEOUT, "6 s of CPU"),
    # it asks for 1.6 GB when it runs
    Fault("faulty_hog.onnx", Reason.SELFTEST_MEMORY, "512 MB"),
    Fault("faulty_nan.onnx", Reason.SELFTEST_NONFINITE, "NaN"),
    # the classes in reverse
    Fault("faulty_wrong.onnx", Reason.SELFTEST_MISMATCH, "8 of 8"),
    # two layers that do not meet
    Fault("faulty_shape.onnx", Reason.SELFTEST_SCHEMA, "64"),
    Fault("faulty_customop.onnx", Reason.SELFTEST_OPERATOR, "com.acme"),
    Fault("faulty_opset.onnx", Reason.SELFTEST_UNSUPPORTED, "opset"),
    Fault(
        "digits_py.eim",
        Reason.SELFTEST_SLOW,
        "at most 20 ms",
        replace=("c = infer(x)", "time.sleep(0.03); c = infer(x)"),
        options=EIM,
    ),
    Fault(
        "digits_py.eim",
        Reason.SELFTEST_LOAD,
        "status 7",
        replace=('"EIM_FAULT", ""', '"EIM_FAULT", "exit"'),
    ),
    Fault("kill -SEGV $$", Reason.SELFTEST_SEGFAULT, "signal 11", options=PROGRAM),
    Fault("kill -ABRT $$", Reason.SELFTEST_CRASH, "signal 6", options=PROGRAM),
    Fault("echo no camera; exit 3", Reason.SELFTEST_ERROR, "status 3: no camera", options=PROGRAM),
]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FleetOfOne]:
    """A device that runs a good version."""
    root = tmp_path_factory.mktemp("faulty")
    with fleet_of_one(root, settings=LIMITS) as made:
        pilotwave(made, "models", "create", MODEL, "--publisher", "keys/publisher.pem")
        publish(made, root / "good", GOOD, Fault("mlp.onnx", Reason.INTERNAL, ""))
        pilotwave(made, "assign", "--yes", MODEL, GOOD, "--group", "boards")
        made.until(MODEL, GOOD, "healthy")
        yield made


def run(fleet: FleetOfOne, *words: str) -> Result:
    """Run a command in this process: starting one for each would be most of the test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(fleet.stage.root)
        return CliRunner().invoke(cli, words, env=fleet.stage.environment())


def pilotwave(fleet: FleetOfOne, *words: str) -> None:
    done = run(fleet, *words)
    assert done.exit_code == 0, (words, done.output, done.exception)


def publish(fleet: FleetOfOne, folder: Path, version: str, fault: Fault) -> None:
    entry = fault.source
    if fault.options == PROGRAM:
        folder.mkdir()
        (folder / "run").write_text(f"#!/bin/sh\n{fault.source}\n")
        entry = "run"
    else:
        names = ("features", "classification") if entry.endswith(".eim") else ("x", "probs")
        lay_out(folder, fault.source, names=names)
    path = folder / entry
    if fault.replace[0]:
        path.write_text(path.read_text().replace(*fault.replace))
    key = ("--key", "keys/publisher.pem", "--unsafe-format", "--entrypoint", entry)
    variant = f"v={folder}"
    pilotwave(
        fleet, "publish", MODEL, version, "--variant", variant, *key, "--no-try", *fault.options
    )


NUMBERS = count(1)


def rows() -> Iterator[Any]:
    """Some are told each time, all of them by `make test-all`."""
    told = (Reason.SELFTEST_MISMATCH, Reason.SELFTEST_OPERATOR, Reason.SELFTEST_SEGFAULT)
    for fault in FAULTS:
        marks = [] if fault.reason in told else [pytest.mark.slow]
        yield pytest.param(fault, id=fault.name, marks=marks)


@pytest.mark.parametrize("fault", [*rows()])
def test_the_server_hears_why_and_the_device_stays(
    fault: Fault, fleet: FleetOfOne, tmp_path: Path
) -> None:
    version = f"2.{next(NUMBERS)}.0"
    publish(fleet, tmp_path / "v", version, fault)
    pilotwave(fleet, "assign", "--yes", MODEL, version, "--group", "boards")

    def ended() -> bool:
        said = fleet.slot(MODEL)
        return said.get("state") == "failed" and version in str(said)

    wait_until(ended, lambda: f"{version} failed; the device says {fleet.slot(MODEL)}")
    said = fleet.slot(MODEL)
    assert (said["reason"], fault.words in said["detail"]) == (fault.reason, True), said
    assert said["current_version"] == GOOD
    assert (fleet.data / "models" / MODEL / "current").readlink().name.startswith(f"{GOOD}-")


def test_a_file_that_is_cut_off_gets_no_further_than_its_publisher(fleet: FleetOfOne) -> None:
    variant = f"v={MODELS / 'faulty_truncated.tflite'}"
    done = run(
        fleet,
        "publish",
        MODEL,
        "3.0.0",
        "--variant",
        variant,
        "--key",
        "keys/publisher.pem",
        "--no-try",
    )
    assert done.exit_code != 0
    assert "cut off or damaged" in str(done.exception)


def test_no_secret_is_in_any_log_or_status(fleet: FleetOfOne) -> None:
    """After all of the above: the server logs at its most talkative, and the agent has failed a
    good deal. The device is also asked by commands, and sent back without a version to go to."""
    root, data = fleet.stage.root, fleet.data
    said = [
        fleet.stage.run("pilotwave-agent", *words, "--data", "board", check=False)
        for words in (("status",), ("status", "--json"), ("rollback", "--model", MODEL), ("once",))
    ]
    again = ("enrol", "--server", fleet.stage.url, "--name", "board", "--code", fleet.code)
    said.append(
        fleet.stage.run(
            "pilotwave-agent", *again, "--root", "keys/root.json", "--data", "other", check=False
        )
    )
    logs = [root / "server.log", root / "agent.log", data / "status.json", data / "journal/log"]
    said += [path.read_text(errors="replace") for path in logs]
    assert all(len(words) > 20 for words in said)
    key = load_key(data / "identity" / "device.key").private_bytes_raw()
    pem = (data / "identity" / "device.key").read_text().splitlines()[1]
    admin = (root / "admin.token").read_text().strip()
    secrets = [fleet.code, pem, key.hex(), base64.b64encode(key).decode(), admin]
    for words in said:
        assert not [secret for secret in secrets if secret in words]
        # a token of this device: key id, name, generation, end, MAC
        assert not re.search(r"\.board\.\d+\.\d{10}\.", words)
        assert "Bearer" not in words
