"""The containers' scripts, run outside of containers: temporary folders, all else real."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.long

REPO = Path(__file__).resolve().parents[2]
Start = Callable[..., Path]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    for name in ("operator", "token", "enrolment", "cam-001"):
        (tmp_path / name).mkdir()
    return {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "PILOTWAVE_DATA_DIR": str(tmp_path / "server"),
        "PILOTWAVE_PORT": "0",
        "PILOTWAVE_POLL_INTERVAL_S": "1",
        "PILOTWAVE_OPERATOR_DIR": str(tmp_path / "operator"),
        "PILOTWAVE_TOKEN_DIR": str(tmp_path / "token"),
        "PILOTWAVE_ENROLMENT_DIR": str(tmp_path / "enrolment"),
        "PILOTWAVE_KEYS": str(tmp_path / "operator" / "keys"),
        "PILOTWAVE_DEVICE": "cam-001",
        "PILOTWAVE_DEVICE_DATA": str(tmp_path / "cam-001"),
    }


@pytest.fixture
def start(environment: dict[str, str], tmp_path: Path) -> Iterator[Start]:
    """Start a script that stays; returns its log. All are ended, agents before the server."""
    started: list[subprocess.Popen[bytes]] = []

    def start(script: str, name: str, **settings: str) -> Path:
        log = tmp_path / f"{name}.log"
        with log.open("wb") as out:
            words = ["sh", str(REPO / "docker" / script)]
            env = {**environment, **settings}
            process = subprocess.Popen(words, stdout=out, stderr=out, env=env)
        started.append(process)
        return log

    yield start
    for process in reversed(started):
        process.terminate()
        process.wait(20)


def run(environment: dict[str, str], script: str, *words: str) -> str:
    """Run a script to its end and return what it printed."""
    done = subprocess.run(
        ["sh", str(REPO / "docker" / script), *words],
        env=environment,
        cwd=REPO,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def wait_until(true: Callable[[], bool], log: Path, *, seconds: float = 40) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, log.read_text()[-2000:]
        time.sleep(0.1)


def serve(start: Start, environment: dict[str, str]) -> None:
    log = start("server.sh", "server")
    wait_until(lambda: "listening on" in log.read_text(), log)
    found = re.search(r"listening on (http://\S+)", log.read_text())
    assert found
    environment["PILOTWAVE_URL"] = environment["PILOTWAVE_SERVER"] = found.group(1)


def test_devices_enrol_by_themselves_and_run_what_is_assigned(
    start: Start, environment: dict[str, str], tmp_path: Path
) -> None:
    serve(start, environment)
    run(environment, "setup.sh", "cam-001", "cam-002")
    device = start("device.sh", "device")
    wait_until(lambda: (tmp_path / "cam-001/identity/enrolled.json").exists(), device)
    publisher = f"{environment['PILOTWAVE_KEYS']}/publisher.pem"
    variant = "onnx-fp32=examples/digits/1.0.0"
    run(environment, "operator.sh", "models", "create", "detector", "--publisher", publisher)
    run(
        environment, "operator.sh", "publish", "detector", "1.0.0",
        "--variant", variant, "--key", publisher,
    )  # fmt: skip
    run(environment, "operator.sh", "groups", "create", "trial", "--selector", "site=trial")
    run(environment, "operator.sh", "assign", "--yes", "detector", "1.0.0", "--group", "trial")

    current = tmp_path / "cam-001/models/detector/current"
    wait_until(lambda: (current / "model.onnx").exists(), device)
    run(environment, "device.sh", "healthy")


def test_setup_may_be_repeated_and_changes_nothing(
    start: Start, environment: dict[str, str], tmp_path: Path
) -> None:
    serve(start, environment)
    run(environment, "setup.sh", "cam-001")
    made = {p: p.read_bytes() for p in tmp_path.glob("[eot]*/**/*") if p.is_file()}
    assert {"root.json", "cam-001.code", "publisher.pem", "admin-token"} <= {p.name for p in made}
    run(environment, "setup.sh", "cam-001")
    assert {p: p.read_bytes() for p in tmp_path.glob("[eot]*/**/*") if p.is_file()} == made


def test_setup_says_when_the_database_alone_was_lost(
    start: Start, environment: dict[str, str], tmp_path: Path
) -> None:
    serve(start, environment)
    run(environment, "setup.sh", "cam-001")
    other = {**environment, "PILOTWAVE_DATABASE_URL": f"sqlite:///{tmp_path / 'new.db'}"}
    log = start("server.sh", "second", PILOTWAVE_DATABASE_URL=other["PILOTWAVE_DATABASE_URL"])
    wait_until(lambda: "listening on" in log.read_text(), log)
    found = re.search(r"listening on (http://\S+)", log.read_text())
    assert found
    words = ["sh", str(REPO / "docker" / "setup.sh"), "cam-001"]
    other["PILOTWAVE_URL"] = found.group(1)
    done = subprocess.run(words, env=other, capture_output=True, text=True)
    assert done.returncode == 1
    assert "Put the database back from a backup" in done.stderr


def test_device_that_is_not_enrolled_is_not_healthy(environment: dict[str, str]) -> None:
    words = ["sh", str(REPO / "docker" / "device.sh"), "healthy"]
    assert subprocess.run(words, env=environment, capture_output=True).returncode != 0
