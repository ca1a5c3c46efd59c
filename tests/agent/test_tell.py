"""A switch is final when the application has taken it: each way to tell, with its yes and its no.

The device is a real one with a real journal and self-test; servers are simulated peers that speak
the protocol (tests/peers/serving.py), applications are real ones with `LiveModel`.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from pilotwave_agent.apps import heartbeats
from pilotwave_agent.live import LiveModel
from pilotwave_agent.settings.config import BadConfig, ProbeSettings, parse
from pilotwave_agent.settings.tell import Tell
from pilotwave_agent.tell.apps import Apps
from pilotwave_agent.tell.base import Release
from pilotwave_protocol.errors import RefusedError
from pilotwave_protocol.states import ModelState
from tests.peers.device import Device
from tests.peers.registry import Registry
from tests.peers.serving import Hook, ModelServer, Triton, numbers
from tests.peers.shelf import X, model_bytes, number_in

S = ModelState


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as made:
        yield made


def publish(registry: Registry, number: int, **files: bytes) -> Any:
    found = {"model.onnx": model_bytes(number)}
    found |= {name.replace("_", "."): data for name, data in files.items()}
    return registry.publish("detector", f"1.{number}.0", found)


def switch(device: Device, registry: Registry, entry: Any) -> tuple[ModelState, str, str | None]:
    """Order a version, work, and return the state, the current version and the reason."""
    registry.order(entry)
    device.work()
    slot = device.slot()
    return slot.state, slot.current.version if slot.current else "", slot.reason


def tell(device: Device, kind: str, **more: Any) -> None:
    device.set(tell=(Tell(kind, timeout_s=more.pop("timeout_s", 10.0), **more),))


def python(code: str) -> tuple[str, ...]:
    return (sys.executable, "-c", code)


# --- programs


def test_a_program_is_told_and_its_status_is_the_answer(
    device: Device, registry: Registry, tmp_path: Path
) -> None:
    said = tmp_path / "said"
    note = (
        "import os; print(*(os.environ['PILOTWAVE_' + w] for w in "
        f"('MODEL', 'VERSION', 'STATE', 'NUMBER')), file=open({str(said)!r}, 'a'))"
    )
    no = "; exec(\"if os.environ['PILOTWAVE_VERSION'] == '1.2.0': raise SystemExit('no, thanks')\")"
    tell(device, "exec", command=python(note + no))
    assert switch(device, registry, publish(registry, 1)) == (S.HEALTHY, "1.1.0", None)
    found = switch(device, registry, publish(registry, 2))
    assert found == (S.ROLLED_BACK, "1.1.0", "app_refused")
    assert "no, thanks" in (device.slot().detail or "")
    lines = [line.split() for line in said.read_text().splitlines()]
    assert [line[:3] for line in lines] == [
        ["detector", "1.1.0", "probation"],
        ["detector", "1.2.0", "probation"],
        ["detector", "1.1.0", "rolled_back"],
    ]
    first, second, again = (int(line[3]) for line in lines)
    assert first == again < second


def test_a_program_that_hangs_is_silence(device: Device, registry: Registry) -> None:
    device.work()
    entry = publish(registry, 1)
    assert switch(device, registry, entry)[0] is S.HEALTHY
    tell(device, "exec", command=python("import time; time.sleep(60)"), timeout_s=0.5)
    found = switch(device, registry, publish(registry, 2))
    assert found == (S.ROLLED_BACK, "1.1.0", "app_silent")


def test_a_unit_is_reloaded_and_must_be_active(
    device: Device, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # a stand-in for systemctl: it notes what it is asked, and knows one unit's state
    said, failed = tmp_path / "said", tmp_path / "failed"
    program = tmp_path / "bin" / "systemctl"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\necho "$@" >> {said}\n'
        f'case "$1" in is-failed) test -e {failed};; is-active) test ! -e {failed};; esac\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    tell(device, "systemd", unit="camera.service", action="restart")
    assert switch(device, registry, publish(registry, 1)) == (S.HEALTHY, "1.1.0", None)
    assert said.read_text().splitlines() == [
        "restart -- camera.service",
        "is-failed --quiet -- camera.service",
        "is-active --quiet -- camera.service",
    ]
    failed.touch()
    found = switch(device, registry, publish(registry, 2))
    assert found == (S.ROLLED_BACK, "1.1.0", "app_refused")
    assert said.read_text().splitlines()[-1] == "restart -- camera.service"


# --- HTTP


def test_a_request_is_sent_and_its_status_is_the_answer(
    device: Device, registry: Registry, stack: ExitStack
) -> None:
    hook = Hook()
    stack.enter_context(hook.running())
    tell(device, "http", url=f"{hook.url}/model?key=1")
    assert switch(device, registry, publish(registry, 1)) == (S.HEALTHY, "1.1.0", None)
    (_, path, body), *_ = hook.requests
    assert path == "/model?key=1"
    assert (body["model"], body["version"], body["state"]) == ("detector", "1.1.0", "probation")
    assert Path(body["path"], body["entrypoint"]).is_file()
    hook.status = 503
    found = switch(device, registry, publish(registry, 2))
    assert found == (S.ROLLED_BACK, "1.1.0", "app_refused")
    assert "status 503: not today" in (device.slot().detail or "")
    assert hook.requests[-1][2]["state"] == "rolled_back"


def test_a_server_that_is_not_there_is_silence(device: Device, registry: Registry) -> None:
    assert switch(device, registry, publish(registry, 1))[0] is S.HEALTHY
    tell(device, "http", url="http://127.0.0.1:9/", timeout_s=0.5)
    found = switch(device, registry, publish(registry, 2))
    assert found == (S.ROLLED_BACK, "1.1.0", "app_silent")


# --- applications that follow the links


@pytest.fixture
def app(device: Device, registry: Registry) -> Iterator[LiveModel]:
    """A device on 1.1.0 whose application must acknowledge, and that application."""
    assert switch(device, registry, publish(registry, 1))[0] is S.HEALTHY
    tell(device, "apps")
    made = LiveModel(
        "detector",
        data=device.config.data_dir,
        app="camera",
        heartbeat_s=0.5,
        check=lambda outputs: float(outputs["y"].max()) != 3,
    )
    with made:
        yield made


def test_the_switch_waits_for_the_application(
    device: Device, registry: Registry, app: LiveModel
) -> None:
    assert switch(device, registry, publish(registry, 2)) == (S.HEALTHY, "1.2.0", None)
    assert number_in(app.run(X)) == 2
    kinds = [e.kind for e in device.state.events if e.version == "1.2.0"]
    assert kinds[-2:] == ["switched", "healthy"]


def test_a_version_that_the_application_refuses_is_taken_back(
    device: Device, registry: Registry, app: LiveModel
) -> None:
    begun = time.monotonic()
    found = switch(device, registry, publish(registry, 3))
    assert found == (S.ROLLED_BACK, "1.1.0", "app_refused")
    assert time.monotonic() - begun < 10.0 + 10.0  # at once, not at the deadline
    assert "camera (process" in (device.slot().detail or "")
    assert "check refused its answer" in (device.slot().detail or "")
    assert device.current().startswith("1.1.0-")
    assert number_in(app.run(X)) == 1


def test_an_application_that_says_nothing_is_taken_back_from_at_the_deadline(
    device: Device, registry: Registry
) -> None:
    assert switch(device, registry, publish(registry, 1))[0] is S.HEALTHY
    tell(device, "apps", timeout_s=0.6)
    found = switch(device, registry, publish(registry, 2))
    assert found == (S.ROLLED_BACK, "1.1.0", "app_silent")
    assert "no application said within 0.6 s that it took 1.2.0" in (device.slot().detail or "")


def test_where_no_application_need_live_none_is_waited_for(
    device: Device, registry: Registry
) -> None:
    tell(device, "apps", apps=0, timeout_s=5)
    assert switch(device, registry, publish(registry, 1)) == (S.HEALTHY, "1.1.0", None)


def test_a_refusal_told_in_hundredths_of_a_second_counts(tmp_path: Path) -> None:
    (tmp_path / "detector").mkdir()
    told_at = 100.004  # and refused 3 ms later, which the application rounds to 100.00
    refusal = {"name": "1.2.0-a-onnx", "at": 100.0, "sentence": "too large"}
    words = {"schema": "pilotwave/app/1", "app": "eye", "state": "serving", "serving": None}
    desk = {**words, "refused": refusal, "beat": heartbeats.uptime(), "heartbeat_s": 60}
    (tmp_path / "detector" / "eye-1.json").write_text(json.dumps(desk))
    path = Path("/x/1.2.0-a-onnx")
    release = Release("detector", "1.2.0", "onnx", 1, path, "model.onnx", "probation")
    with pytest.raises(RefusedError, match="too large"):
        Apps(Tell("apps"), tmp_path).confirm(release, told_at)
    assert not Apps(Tell("apps"), tmp_path).confirm(release, told_at + 1)


def test_all_that_live_must_have_taken_it(
    device: Device, registry: Registry, app: LiveModel
) -> None:
    desk = device.layout.live / "detector" / "other-1.json"
    words = {"schema": "pilotwave/app/1", "app": "other", "state": "serving", "serving": "1.1.0-x"}

    def beat() -> None:
        desk.write_text(json.dumps({**words, "beat": heartbeats.uptime(), "heartbeat_s": 60}))

    beat()
    tell(device, "apps", timeout_s=1.0)
    assert switch(device, registry, publish(registry, 2))[2] == "app_silent"
    desk.write_text(json.dumps({**words, "beat": heartbeats.uptime() - 999, "heartbeat_s": 60}))
    tell(device, "apps", timeout_s=10.0)
    assert switch(device, registry, publish(registry, 4)) == (S.HEALTHY, "1.4.0", None)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"{",
        b'{"schema": "pilotwave/app/1"}',
        b'{"schema": "pilotwave/app/1", "app": "x", "state": 1, "beat": "x", "heartbeat_s": 1}',
        b'{"schema": "pilotwave/app/1", "app": "x", "state": "s", "beat": NaN, "heartbeat_s": 1,'
        b' "refused": 7}',
        b"[" * 60_000,
        b" " * 70_000,
    ],
)
def test_a_desk_of_nonsense_is_passed_over(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "a.json").write_bytes(raw)
    os.mkfifo(tmp_path / "b.json")
    (tmp_path / "c.json").symlink_to("/etc/passwd")
    (tmp_path / "d.json").mkdir()
    assert heartbeats.read(tmp_path) == []


# --- model servers


def test_triton_loads_what_is_staged_and_goes_back(
    device: Device, registry: Registry, tmp_path: Path, stack: ExitStack
) -> None:
    triton = Triton(tmp_path / "repository")
    stack.enter_context(triton.running())
    tell(device, "triton", url=triton.url, folder=triton.repository)
    assert switch(device, registry, publish(registry, 1)) == (S.HEALTHY, "1.1.0", None)
    folder = triton.repository / "detector"
    (first,) = numbers(folder)
    assert triton.serving == {"detector": first}
    assert (folder / str(first) / "model.onnx").read_bytes() == model_bytes(1)

    # one that it cannot load: it serves the old one throughout, and the folder goes away
    found = switch(device, registry, publish(registry, 2, note_txt=b"unloadable"))
    assert found == (S.ROLLED_BACK, "1.1.0", "app_refused")
    assert "cannot parse it" in (device.slot().detail or "")
    assert (triton.serving, numbers(folder)) == ({"detector": first}, [first])

    # one that loads and then falls over
    triton.gives_up = True
    assert switch(device, registry, publish(registry, 3)) == (S.ROLLED_BACK, "1.1.0", "app_refused")
    assert "it fell over" in (device.slot().detail or "")

    # one that is taken, and fails its probation
    device.set(probe=ProbeSettings("exec", ("false",), interval_s=0.1, failures=1))
    assert switch(device, registry, publish(registry, 4))[1:] == ("1.1.0", "probe_failed")
    assert (triton.serving, numbers(folder)) == ({"detector": first}, [first])

    # and a good one: its number is above all that were ever used
    device.set(probe=ProbeSettings("exec", ("true",), interval_s=0.1))
    config = b'name: "detector"'
    assert switch(device, registry, publish(registry, 5, config_pbtxt=config))[0] is S.HEALTHY
    assert numbers(folder)[0] == first
    assert triton.serving["detector"] == numbers(folder)[-1] >= first + 4
    assert (folder / "config.pbtxt").read_bytes() == config
    assert not [n for n in os.listdir(folder) if n.startswith(".tmp")]


@pytest.mark.parametrize("kind", ["openvino", "tensorflow"])
def test_a_model_server_serves_the_highest_number_and_goes_back(
    device: Device, registry: Registry, tmp_path: Path, stack: ExitStack, kind: str
) -> None:
    server = ModelServer(tmp_path / "models", told=kind == "openvino")
    server.base.mkdir()
    stack.enter_context(server.running())
    tell(device, kind, url=server.url, folder=server.base, name="eye")
    assert switch(device, registry, publish(registry, 1)) == (S.HEALTHY, "1.1.0", None)
    (first,) = numbers(server.base / "eye")
    assert server.serving("eye") == first
    found = switch(device, registry, publish(registry, 2, note_txt=b"unloadable"))
    assert found == (S.ROLLED_BACK, "1.1.0", "app_refused")
    assert "cannot read the model" in (device.slot().detail or "")
    assert (server.serving("eye"), numbers(server.base / "eye")) == (first, [first])
    assert switch(device, registry, publish(registry, 3))[:2] == (S.HEALTHY, "1.3.0")
    both = numbers(server.base / "eye")
    assert (server.serving("eye"), len(both)) == (both[-1], 2)
    for number in (4, 5):
        assert switch(device, registry, publish(registry, number))[0] is S.HEALTHY
    assert numbers(server.base / "eye")[0] == both[-1]  # what may not be gone back to is removed


def test_only_folders_of_ones_own_are_removed(
    device: Device, registry: Registry, tmp_path: Path
) -> None:
    base = tmp_path / "models"
    (base / "detector" / "7").mkdir(parents=True)
    tell(device, "tensorflow", folder=base)
    for number in (1, 2, 3, 4):
        assert switch(device, registry, publish(registry, number))[0] is S.HEALTHY
    assert len(numbers(base / "detector")) == 4
    assert numbers(base / "detector")[0] == 7


def test_deepstreams_file_is_written_in_place(
    device: Device, registry: Registry, tmp_path: Path
) -> None:
    override = tmp_path / "override.txt"
    override.write_text("")
    before = override.stat().st_ino
    tell(device, "deepstream", file=override)
    assert switch(device, registry, publish(registry, 1))[0] is S.HEALTHY
    assert override.stat().st_ino == before  # it watches this file; a rename would go unseen
    engine = override.read_text().splitlines()[-1].removeprefix("model-engine-file=")
    assert Path(engine).read_bytes() == model_bytes(1)
    assert "current" not in engine


# --- settings


def test_settings_name_who_is_told(tmp_path: Path) -> None:
    data = {
        "server": "http://127.0.0.1:1",
        "device": "cam-1",
        "data_dir": "data",
        "tell": [
            {"kind": "triton", "models": ["a"], "url": "http://127.0.0.1:8000/", "folder": "repo"},
            {"kind": "apps", "timeout_s": 5},
        ],
    }
    triton, apps = parse(data, base=tmp_path).tell
    assert (triton.url, triton.folder) == ("http://127.0.0.1:8000", tmp_path / "repo")
    assert (apps.kind, apps.timeout_s, apps.apps) == ("apps", 5.0, 1)


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"kind": "smoke"}, "kind: expected one of apps, exec"),
        ({"kind": "exec"}, "command: expected a value"),
        ({"kind": "systemd", "unit": "--force"}, "unit: expected a unit's name"),
        ({"kind": "http", "url": "ftp://x"}, "url: expected an http or https URL"),
        ({"kind": "triton", "url": "http://x"}, "folder: expected a value"),
        ({"kind": "systemd", "unit": "a", "action": "poweroff"}, "action: expected one of"),
        ({"kind": "apps", "timeout_s": 0}, "timeout_s: expected"),
        ({"kind": "apps", "colour": "red"}, "colour"),
    ],
)
def test_settings_that_make_no_sense_are_refused(
    tmp_path: Path, table: dict[str, Any], words: str
) -> None:
    data = {"server": "http://127.0.0.1:1", "device": "c", "data_dir": "d", "tell": [table]}
    with pytest.raises(BadConfig, match=words):
        parse(data, base=tmp_path)
