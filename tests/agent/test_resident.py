"""The resident agent as a process: away from its server, killed, asked twice, told to stop."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from pilotwave_agent.commands.once import once
from pilotwave_protocol.states import ModelState, Reason
from tests.agent.resident import (
    children_of,
    kill_all,
    log_of,
    resident,
    run_agent,
    settle,
    wait_until,
)
from tests.peers.device import Device
from tests.peers.registry import Registry, Reply, example, problem


@pytest.fixture
def ready(registry: Registry, device: Device) -> Device:
    """A device that nobody has started, told to run 1.0.0; a second, better version is there."""
    registry.order(registry.publish("detector", "1.0.0", example("1.0.0")))
    registry.publish("detector", "1.1.0", example("1.1.0"))
    settle(device, probation_s=0, keep_free_mb=0)
    return device


def runs(device: Device, version: str) -> bool:
    slot = device.slot()
    return bool(slot.current and slot.current.version == version) and (
        slot.state in (ModelState.HEALTHY, ModelState.ROLLED_BACK)
    )


def reports(registry: Registry, version: str) -> bool:
    """Say whether the newest check-in tells of a version that is well."""
    last = registry.check_ins[-1] if registry.check_ins else None
    return any(m.current and m.current.version == version for m in last.models) if last else False


def order(registry: Registry, version: str) -> None:
    registry.order(registry.versions["detector", version])


def test_it_installs_what_it_is_told_reports_it_and_stops_when_asked(
    registry: Registry, ready: Device
) -> None:
    with resident(ready) as agent:
        wait_until(lambda: reports(registry, "1.0.0"), "1.0.0 reported")
        order(registry, "1.1.0")
        wait_until(lambda: reports(registry, "1.1.0"), "1.1.0 reported")
        assert ready.current().startswith("1.1.0-")
        agent.send_signal(signal.SIGTERM)
        assert agent.wait(20) == 0
    assert [e.reason for e in registry.events.values() if e.reason] == []
    seqs = [c.seq for c in registry.check_ins]
    assert seqs == sorted(set(seqs))


def test_an_idle_agent_has_no_child_and_writes_nothing(registry: Registry, ready: Device) -> None:
    def written() -> dict[Path, tuple[int, int]]:
        found = (p for p in ready.config.data_dir.rglob("*") if not p.is_symlink())
        return {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in found}

    with resident(ready) as agent:
        wait_until(lambda: reports(registry, "1.0.0"), "1.0.0 reported")
        wait_until(lambda: not children_of(agent.pid), "the child's end")
        polled, before = registry.requests.count("GET /device/v1/directive"), written()
        wait_until(
            lambda: registry.requests.count("GET /device/v1/directive") > polled + 3, "polls"
        )
        assert written() == before
        assert not children_of(agent.pid)


def test_events_of_days_without_a_server_arrive_later_once_and_in_order(
    registry: Registry, ready: Device
) -> None:
    with resident(ready):
        wait_until(lambda: reports(registry, "1.0.0"), "1.0.0 reported")
        order(registry, "1.1.0")
        wait_until(lambda: reports(registry, "1.1.0"), "1.1.0 reported")
    told, seen = len(registry.check_ins), max(registry.events)
    registry.stop()
    with resident(ready):  # it starts without the server, too
        wait_until(lambda: "no connection" in log_of(ready).read_text(), "its word of it")
        back = run_agent("rollback", "--model", "detector", "--config", str(ready.config_path))
        assert back.returncode == 0, back.stderr
        assert back.stdout == "detector: 1.1.0 to 1.0.0\n"
    assert ready.current().startswith("1.0.0-")
    assert len(registry.check_ins) == told
    with resident(ready):  # and remembers what it has not been able to tell
        registry.come_back()
        wait_until(lambda: reports(registry, "1.0.0"), "the way back reported")
        wait_until(lambda: not registry.check_ins[-1].events, "an end of old news")
    late = [e for e in registry.events.values() if e.id > seen]
    assert any(e.reason == Reason.LOCAL_ROLLBACK for e in late), late
    assert [e.id for e in registry.events.values()] == sorted(registry.events)
    # the operator's order of 1.1.0 stands, and does not undo what was done here by hand
    assert runs(ready, "1.0.0")


def test_what_runs_is_left_alone_by_a_server_that_answers_nonsense(
    registry: Registry, ready: Device
) -> None:
    with resident(ready) as agent:
        wait_until(lambda: reports(registry, "1.0.0"), "1.0.0 reported")
        for nonsense in (
            lambda path, reply: problem(500, "internal"),
            lambda path, reply: Reply(200, b"<html>please log in</html>"),
            lambda path, reply: Reply(302, headers={"Location": "http://127.0.0.1:9/evil"}),
            lambda path, reply: Reply(200, b"\xff" * 3_000_000),
            lambda path, reply: Reply(200, b"{}", declared=10_000),
            lambda path, reply: problem(401, "unknown_device"),
        ):
            asked = len(registry.requests)
            registry.bend = nonsense
            order(registry, "1.1.0")
            wait_until(lambda: len(registry.requests) > asked, "a request")  # noqa: B023
        assert agent.poll() is None
        assert runs(ready, "1.0.0")
        registry.bend = lambda path, reply: reply
        wait_until(lambda: reports(registry, "1.1.0"), "1.1.0 reported", patience_s=120)


def test_tokens_that_no_poll_is_answered_for_are_asked_for_less_and_less(
    registry: Registry, ready: Device
) -> None:
    """As behind a balancer whose hosts do not know each other's tokens."""
    with resident(ready):
        wait_until(lambda: reports(registry, "1.0.0"), "1.0.0 reported")
        registry.bend = lambda path, reply: (
            problem(401, "bad_token") if path.startswith("/device/v1/directive") else reply
        )
        wait_until(lambda: "/device/v1/directive" in registry.requests[-1], "a poll")
        before = len(registry.requests)
        time.sleep(12)
        asked = registry.requests[before:]
        assert len(asked) <= 14, asked  # waits of 1 to 2 s, of 2 to 4 s, of 4 to 8 s
        assert any("check-in" in path for path in asked), asked
        registry.bend = lambda path, reply: reply
        order(registry, "1.1.0")
        wait_until(lambda: reports(registry, "1.1.0"), "1.1.0 reported", patience_s=120)


def test_killed_with_its_child_it_goes_on_where_it_was(registry: Registry, ready: Device) -> None:
    with resident(ready) as agent:
        wait_until(lambda: reports(registry, "1.0.0"), "1.0.0 reported")
        order(registry, "1.1.0")
        wait_until(lambda: children_of(agent.pid), "a child at work")
        kill_all(agent)
    assert ready.current().startswith(("1.0.0-", "1.1.0-"))
    with resident(ready):
        wait_until(lambda: reports(registry, "1.1.0"), "1.1.0 reported")


def test_a_child_ends_with_the_agent_that_started_it(registry: Registry, ready: Device) -> None:
    registry.bend = lambda path, reply: (
        Reply(200, reply.body, stall=0.5, piece=64) if path.startswith("/blobs/") else reply
    )
    with resident(ready) as agent:
        wait_until(lambda: children_of(agent.pid), "a child at work")
        (child,) = children_of(agent.pid)
        os.kill(agent.pid, signal.SIGKILL)
        agent.wait()
        wait_until(lambda: not Path(f"/proc/{child}/stat").exists(), "the child's end")


def test_all_that_a_probe_started_ends_with_an_agent_that_is_killed(
    registry: Registry, device: Device, tmp_path: Path
) -> None:
    """Also what has left the probe's session, whose own parent has ended."""
    pids = tmp_path / "pids"
    script = tmp_path / "probe.sh"
    script.write_text(
        f"sleep 300 & echo $! >>{pids}\n"
        f"(setsid sleep 300 & echo $! >>{pids})\n"
        f"echo $$ >>{pids}\nwait\n"
    )
    settle(device, probation_s=60, keep_free_mb=0)
    with device.config_path.open("a") as file:
        command = json.dumps(["sh", str(script)])
        file.write(f'[probe]\nkind = "exec"\ncommand = {command}\ninterval_s = 1\ntimeout_s = 60\n')
    registry.order(registry.publish("detector", "1.0.0", example("1.0.0")))
    with resident(device) as agent:
        wait_until(lambda: pids.exists() and len(pids.read_text().split()) == 3, "the probe")
        agent.kill()
        agent.wait()
    for pid in pids.read_text().split():
        gone = lambda pid=pid: not Path(f"/proc/{pid}").exists()  # noqa: E731
        wait_until(gone, f"the end of process {pid}", patience_s=10)


def test_a_second_agent_on_the_same_folder_is_refused(registry: Registry, ready: Device) -> None:
    with resident(ready):
        wait_until(lambda: registry.check_ins, "a check-in")
        for command in ("run", "once"):
            second = run_agent(command, "--config", str(ready.config_path))
            assert second.returncode == 4
            assert "already running" in second.stderr


def test_status_tells_people_and_scripts(registry: Registry, ready: Device) -> None:
    where = ("--config", str(ready.config_path))
    assert "no models yet" in run_agent("status", *where).stdout
    done = run_agent("once", *where)
    assert (done.returncode, done.stderr) == (0, "")
    words = run_agent("status", *where).stdout
    assert words.startswith(f"cam-1 of fleet acme at {registry.url}: agent not running\n")
    assert "detector: runs 1.0.0 (onnx-fp32), healthy for" in words
    found = json.loads(run_agent("status", "--json", *where).stdout)
    assert found["models"][0]["current"]["version"] == "1.0.0"
    assert json.loads((ready.config.data_dir / "status.json").read_text())["models"]


def test_once_says_when_its_token_is_refused(registry: Registry, device: Device) -> None:
    polls = "/device/v1/directive"
    registry.bend = lambda path, reply: problem(401, "bad_token") if path == polls else reply
    assert once(device.config, device.config_path) == "the server refuses the token that it gave"
    registry.bend = lambda path, reply: problem(500, "broken") if path == polls else reply
    assert "the server said 500 broken" in (once(device.config, device.config_path) or "")


def test_rolling_back_needs_a_version_to_go_back_to(registry: Registry, ready: Device) -> None:
    where = ("--config", str(ready.config_path))
    nothing = run_agent("rollback", "--model", "detector", *where)
    assert nothing.returncode == 1
    assert "runs no version of it" in nothing.stderr
    assert run_agent("once", *where).returncode == 0
    first = run_agent("rollback", "--model", "detector", *where)
    assert first.returncode == 1
    assert "no earlier version here may run" in first.stderr
    assert runs(ready, "1.0.0")
