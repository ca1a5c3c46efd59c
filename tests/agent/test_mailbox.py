"""Applications in other languages: the C example of docs/device.md, and the socket that it uses."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pilotwave_agent.apps import heartbeats
from pilotwave_agent.apps.mailbox import Mailbox
from pilotwave_agent.check_in.metrics import Telemetry
from pilotwave_agent.host.disk import Disk
from pilotwave_agent.host.layout import Layout
from pilotwave_protocol.states import ModelState
from tests.agent.test_tell import publish, switch, tell
from tests.peers.device import Device
from tests.peers.registry import Registry
from tests.peers.shelf import Shelf

SOURCE = Path(__file__).parent.parent.parent / "examples" / "app" / "pilotwave_app.c"
S = ModelState


@pytest.fixture
def live(tmp_path: Path) -> Path:
    (tmp_path / "live" / "detector").mkdir(parents=True)
    return tmp_path / "live"


@pytest.fixture
def mailbox(live: Path) -> Iterator[Mailbox]:
    made = Mailbox(live, "")
    yield made
    made.close()


def send(live: Path, words: Any) -> None:
    raw = words if isinstance(words, bytes) else json.dumps(words).encode()
    here = os.getcwd()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        os.chdir(live)  # the path of a test's folder is too long for a socket
        try:
            s.sendto(raw, "agent.sock")
        finally:
            os.chdir(here)


def test_a_datagram_is_a_desk(live: Path, mailbox: Mailbox) -> None:
    said = {"schema": "pilotwave/app/1", "id": "eye-1", "model": "detector", "state": "serving"}
    send(live, {**said, "serving": "1.1.0-a-onnx"})
    mailbox.empty()
    (app,) = heartbeats.read(live / "detector")
    assert (app.app, app.serving, app.lives()) == ("eye-1", "1.1.0-a-onnx", True)


def test_numbers_become_windows(live: Path, mailbox: Mailbox) -> None:
    said = {"schema": "pilotwave/sample/1", "model": "detector", "version": "1.1.0"}
    for _ in range(3):
        send(live, {**said, "numbers": {"latency_ms": [1.5, 2.5], "error": [0, 1], "score": 0.9}})
        mailbox.empty()
    mailbox.flush()
    telemetry = Telemetry(Disk(), live, live.parent / "telemetry" / "spool.json")
    telemetry.collect(time.time())
    counts = {r.metric: (r.version, r.sketch.count) for r in telemetry.pending()}
    assert counts == {
        "latency_ms": ("1.1.0", 6),
        "error": ("1.1.0", 6),
        "score": ("1.1.0", 3),
    }


@pytest.mark.parametrize(
    "words",
    [
        b"",
        b"\xff" * 100,
        b"[" * 60_000,
        [],
        7,
        {"schema": "pilotwave/app/1"},
        {"schema": "pilotwave/app/1", "model": "../..", "id": "a"},
        {"schema": "pilotwave/app/1", "model": "other", "id": "a"},
        {"schema": "pilotwave/app/1", "model": "detector", "id": "../../../evil"},
        {"schema": "pilotwave/app/1", "model": "detector", "id": ".hidden"},
        {"schema": "pilotwave/app/1", "model": "detector", "id": 7 * [1]},
        {"schema": "pilotwave/sample/1", "model": "detector", "version": "/", "numbers": {}},
        {
            "schema": "pilotwave/sample/1",
            "model": "detector",
            "version": "1.0.0",
            "numbers": {"score": [1e999]},
        },
        {"schema": "pilotwave/sample/1", "model": "detector", "version": "1.0.0", "numbers": 7},
    ],
    ids=str,
)
def test_mail_of_nonsense_is_passed_over(live: Path, mailbox: Mailbox, words: Any) -> None:
    send(live, words)
    mailbox.empty()
    mailbox.flush()
    assert os.listdir(live / "detector") == []
    assert sorted(os.listdir(live)) == ["agent.sock", "detector"]


def test_a_flood_fills_no_disk(live: Path, mailbox: Mailbox) -> None:
    for number in range(200):
        said = {"schema": "pilotwave/app/1", "id": f"a{number}", "model": "detector"}
        send(live, said)
        sample = {"schema": "pilotwave/sample/1", "model": "detector"}
        send(live, {**sample, "version": f"1.0.{number}", "numbers": {"score": 1}})
        mailbox.empty()
    mailbox.flush()
    assert len(os.listdir(live / "detector")) <= 64 + 8


def test_a_stale_socket_is_replaced(live: Path, mailbox: Mailbox) -> None:
    second = Mailbox(live, "")
    said = {"schema": "pilotwave/app/1", "id": "eye-1", "model": "detector", "state": "serving"}
    send(live, said)
    second.empty()
    assert len(heartbeats.read(live / "detector")) == 1
    second.close()


# --- the example in C


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("gcc") or shutil.which("cc")
    assert compiler, "a C compiler is needed: apt install gcc"
    made = tmp_path_factory.mktemp("c") / "pilotwave_app"
    flags = ["-std=c11", "-O2", "-Wall", "-Wextra", "-Werror"]
    subprocess.run([compiler, *flags, "-o", made, SOURCE], check=True)
    return made


def until(what: Callable[[], Any]) -> Any:
    ends = time.monotonic() + 60
    while not (found := what()):
        assert time.monotonic() < ends, "it did not come about"
        time.sleep(0.02)
    return found


def test_the_c_example_takes_refuses_and_reports(
    device: Device, registry: Registry, program: Path, tmp_path: Path
) -> None:
    assert switch(device, registry, publish(registry, 1))[0] is S.HEALTHY
    # /proc gives the data folder a path that is short enough for a socket's
    short = Path("/tmp") / f"pw-{os.getpid()}"
    short.symlink_to(device.config.data_dir)
    mailbox = Mailbox(device.layout.live, "")
    arguments = [program, short, "detector", "2000"]
    app = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
    try:
        tell(device, "apps", timeout_s=30.0)
        assert switch(device, registry, publish(registry, 2)) == (S.HEALTHY, "1.2.0", None)
        large = publish(registry, 3, model_onnx=_large())
        assert switch(device, registry, large) == (S.ROLLED_BACK, "1.2.0", "app_refused")
        assert "c-app" in (device.slot().detail or "")
        assert "it is larger than the memory here" in (device.slot().detail or "")
        until(lambda: mailbox.empty() or mailbox._recorders)
        mailbox.flush()
        telemetry = Telemetry(Disk(), device.layout.live, tmp_path / "spool.json")
        telemetry.collect(time.time())
        assert {r.metric for r in telemetry.pending()} == {"latency_ms", "error", "score"}
    finally:
        app.send_signal(signal.SIGTERM)
        said, _ = app.communicate(timeout=30)
        mailbox.close()
        short.unlink()
    words = [line.split()[0] + " " + line.split()[1][:5] for line in said.splitlines()]
    # one that reads the link before it hears of it tries, and refuses, a second time
    assert list(dict.fromkeys(words)) == ["serving 1.1.0", "serving 1.2.0", "refused 1.3.0"]
    (seen,) = heartbeats.read(device.layout.live / "detector")
    assert (seen.state, seen.crashed()) == ("stopped", False)


@pytest.mark.parametrize(
    ("kind", "metrics"),
    [
        ("good", {"shadow_error", "shadow_disagree", "shadow_latency_ratio"}),
        ("gone", {"shadow_error"}),
    ],
)
def test_the_c_example_tries_a_version_in_shadow(
    program: Path, tmp_path: Path, kind: str, metrics: set[str]
) -> None:
    shelf = Shelf(tmp_path)
    heartbeats.prepare(tmp_path / "live", "detector", "")
    shelf.serve(1)
    version = shelf.add(2)
    if kind == "gone":
        (shelf.layout.version("detector", version) / "model.onnx").unlink()
    shelf.shadow(version)
    short = Path("/tmp") / f"pw-shadow-{os.getpid()}"
    short.symlink_to(tmp_path)
    mailbox = Mailbox(tmp_path / "live", "")
    app = subprocess.Popen([program, short, "detector"], stdout=subprocess.DEVNULL)
    try:
        until(lambda: mailbox.empty() or ("1.2.0" in mailbox._versions.get("detector", ())))
        mailbox.flush()
    finally:
        app.terminate()
        assert app.wait(30) == 0
        mailbox.close()
        short.unlink()
    telemetry = Telemetry(Disk(), tmp_path / "live", tmp_path / "spool.json")
    telemetry.collect(time.time())
    found = {r.metric: r.sketch for r in telemetry.pending() if r.version == "1.2.0"}
    assert set(found) == metrics
    assert found["shadow_error"].max == (kind == "gone")
    if kind == "good":
        assert found["shadow_disagree"].min == 1  # another model, another sum
        assert found["shadow_latency_ratio"].min > 0


def _large() -> bytes:
    from tests.peers.shelf import model_bytes

    return model_bytes(3, hidden=1000)


def test_the_c_example_outlives_an_agent_that_is_not_there(program: Path, tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    heartbeats.prepare(tmp_path / "live", "detector", "")
    app = subprocess.Popen([program, tmp_path, "detector"], stdout=subprocess.PIPE, text=True)
    assert app.stdout
    try:
        until(lambda: heartbeats.read(tmp_path / "live" / "detector"))
        assert heartbeats.read(tmp_path / "live" / "detector")[0].state == "waiting"
        shelf.serve(1)
        assert app.stdout.readline().startswith("serving 1.1.0-")
        shelf.serve(2)
        assert app.stdout.readline().startswith("serving 1.2.0-")
        assert Layout(tmp_path).live.is_dir()
    finally:
        app.terminate()
        assert app.wait(30) == 0
        app.stdout.close()
