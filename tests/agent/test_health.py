"""Probation: each kind of probe, its yes and its no; applications that crash again and again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from pilotwave_agent import health
from pilotwave_agent.apps import heartbeats
from pilotwave_agent.health import Since, Subject
from pilotwave_agent.settings.config import BadConfig, ProbeSettings, parse
from pilotwave_protocol.states import ModelState
from tests.agent.test_tell import publish, switch
from tests.peers.device import Device
from tests.peers.registry import Registry
from tests.peers.serving import Triton
from tests.peers.shelf import Shelf

S = ModelState


def subject(path: Path = Path("/x/1.1.0-a-onnx")) -> Subject:
    return Subject("detector", "1.1.0", path, "probation")


def ask(probe: ProbeSettings, **more: Any) -> str:
    no = health.ask(probe, subject(), lambda: None, **more)
    return no.sentence if no else ""


# --- a model server's readiness


def test_a_kserve_server_and_its_model_must_be_ready(tmp_path: Path) -> None:
    triton = Triton(tmp_path)
    with triton.running():
        probe = ProbeSettings("kserve", url=triton.url + "/")
        assert "/v2/models/detector/ready: status 400" in ask(probe)
        triton.serving["detector"] = 1
        assert ask(probe) == ""
        assert "/v2/models/eye/ready" in ask(ProbeSettings("kserve", url=triton.url, name="eye"))
    assert "/v2/health/live" in ask(
        ProbeSettings("kserve", url="http://127.0.0.1:9", timeout_s=0.5)
    )


# --- programs


def test_a_program_that_hangs_ends_with_all_that_it_started(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = f"setsid sleep 300 & echo $! >{pids}; wait"
    no = ask(ProbeSettings("exec", ("sh", "-c", script), timeout_s=1))
    assert no == "sh: no end within 1 s"
    assert not Path(f"/proc/{pids.read_text().strip()}").exists()


def test_what_a_program_left_running_goes_on(tmp_path: Path) -> None:
    """A hook may start an application."""
    pids = tmp_path / "pids"
    assert (
        ask(ProbeSettings("exec", ("sh", "-c", f"sleep 300 & echo $! >{pids}"), timeout_s=30)) == ""
    )
    os.kill(int(pids.read_text()), signal.SIGKILL)  # it is there


def test_a_program_is_told_by_its_own_end(tmp_path: Path) -> None:
    assert (
        ask(ProbeSettings("exec", ("sh", "-c", "echo no; exit 3"))) == "sh ended with status 3: no"
    )
    assert ask(ProbeSettings("exec", ("sh", "-c", "kill -SEGV $$"))) == "sh ended with status -11"
    assert "cannot be started: No such file" in ask(ProbeSettings("exec", (str(tmp_path / "no"),)))


# --- applications


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    (tmp_path / "detector").mkdir()
    return tmp_path / "detector"


def say(desk: Path, name: str, **words: Any) -> None:
    known = {"schema": "pilotwave/app/1", "app": name.partition("-")[0], "state": "serving"}
    known |= {"serving": "1.1.0-a-onnx", "beat": heartbeats.uptime(), "heartbeat_s": 10}
    (desk / f"{name}.json").write_text(json.dumps({**known, **words}))


def test_applications_must_live_and_serve_the_version(desk: Path) -> None:
    probe = ProbeSettings("apps")
    assert "0 applications give signs of life; at least 1 must" in ask(probe, live=desk.parent)
    say(desk, "camera-1")
    assert ask(probe, live=desk.parent) == ""
    say(desk, "camera-2", serving="1.0.0-b-onnx")
    assert "serves 1.0.0-b-onnx, not 1.1.0-a-onnx" in ask(probe, live=desk.parent)
    say(desk, "camera-2", state="stopped")
    assert ask(probe, live=desk.parent) == ""
    say(desk, "camera-1", beat=heartbeats.uptime() - 100)
    assert "0 applications" in ask(probe, live=desk.parent)


def test_ends_without_a_word_since_the_switch_are_a_crash_loop(desk: Path) -> None:
    since = Since(heartbeats.uptime() - 50)
    say(desk, "camera-0", beat=since.uptime - 10)  # it ended before the switch
    ended = {"pid": 1 << 22, "start": "7", "ns": os.readlink("/proc/self/ns/pid")}
    say(desk, "camera-1", state="crashed")
    say(desk, "camera-2", **ended)
    say(desk, "camera-3", state="stopped")
    say(desk, "camera-4")
    probe = ProbeSettings("apps", crashes=3)
    assert ask(probe, live=desk.parent, since=since) == ""
    say(desk, "camera-5", **ended)
    found = ask(probe, live=desk.parent, since=since)
    assert found == "camera ended 3 times without a word since the switch"


CRASHES = """
import sys
from pilotwave_agent.live import LiveModel
model = LiveModel("detector", data=sys.argv[1], app="camera")
if model.version.version != "1.1.0":
    import os
    os.abort()
"""


def test_a_version_on_which_the_application_crashes_again_and_again_is_taken_back(
    device: Device, registry: Registry, tmp_path: Path
) -> None:
    assert switch(device, registry, publish(registry, 1))[0] is S.HEALTHY
    supervisor = 'while test ! -e "$1/ends"; do "$2" -c "$3" "$1"; done'
    app = subprocess.Popen(
        ["sh", "-c", supervisor, "sh", device.config.data_dir, sys.executable, CRASHES],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        probe = ProbeSettings("apps", interval_s=0.2, failures=2, crashes=3, apps=0)
        device.set(probe=probe, probation_s=60.0)
        registry.order(publish(registry, 2))
        done, ends = device.work(), time.monotonic() + 60
        while device.slot().state is S.PROBATION and time.monotonic() < ends:
            time.sleep(0.2)
            done = device.work(probed=done.probed)
        slot = device.slot()
        assert (slot.state, slot.reason) == (S.ROLLED_BACK, "probe_failed")
        assert "without a word since the switch" in (slot.detail or "")
    finally:
        (device.config.data_dir / "ends").touch()
        app.wait(60)


# --- systemd

SYSTEMCTL = """#!/bin/sh
cat "$(dirname "$0")/says"
"""


def test_a_unit_must_be_active_and_not_be_restarted_again_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # a stand-in for systemctl that answers what `systemctl show` does
    program, says = tmp_path / "systemctl", tmp_path / "says"
    program.write_text(SYSTEMCTL)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    probe = ProbeSettings("systemd", unit="camera.service", crashes=3)

    def set_to(state: str, sub: str, restarts: int) -> None:
        says.write_text(f"ActiveState={state}\nSubState={sub}\nNRestarts={restarts}\n")

    set_to("active", "running", 7)
    assert health.restarts(probe, subject()) == 7
    assert ask(probe, since=Since(0, 7)) == ""
    set_to("active", "running", 9)
    assert ask(probe, since=Since(0, 7)) == ""
    set_to("active", "running", 10)
    assert "restarted camera.service 3 times" in ask(probe, since=Since(0, 7))
    set_to("active", "running", 2)  # a restart by hand sets the count to 0
    assert ask(probe, since=Since(0, 7)) == ""
    set_to("activating", "auto-restart", 8)
    assert "camera.service is activating (auto-restart)" in ask(probe, since=Since(0, 7))


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"kind": "kserve"}, "url: expected an http or https URL"),
        ({"kind": "systemd"}, "unit: expected a unit's name"),
        ({"kind": "apps", "crashes": 0}, "crashes: expected"),
        ({"kind": "pulse"}, "kind: expected one of selftest, exec, http, kserve, apps, systemd"),
    ],
)
def test_probes_that_make_no_sense_are_refused(
    tmp_path: Path, table: dict[str, Any], words: str
) -> None:
    data = {"server": "http://127.0.0.1:1", "device": "c", "data_dir": "d", "probe": table}
    with pytest.raises(BadConfig, match=words):
        parse(data, base=tmp_path)


def test_the_desk_of_a_process_that_was_replaced_under_its_number_is_a_dead_ones(
    tmp_path: Path,
) -> None:
    Shelf(tmp_path)
    words = {"pid": os.getpid(), "start": "1", "ns": os.readlink("/proc/self/ns/pid")}
    say(tmp_path, "camera-1", **words)
    (app,) = heartbeats.read(tmp_path)
    assert app.gone()
    assert app.crashed()
