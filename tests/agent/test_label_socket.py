"""Labels from applications in other languages: what they send to `live/label.sock`."""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pilotwave_agent.apps import heartbeats
from pilotwave_agent.apps.label_message import MAX_HEAD_BYTES
from pilotwave_agent.apps.label_socket import LabelSocket
from pilotwave_agent.live.labels import ENDING, FILE, LABEL_SOCKET, MAX_WAITING, LabelRules
from pilotwave_agent.runtimes.casefile import read_about, read_tensors
from tests.agent.resident import resident, run_agent, settle, wait_until
from tests.agent.test_mailbox import program, until
from tests.peers.device import Device, device, registry
from tests.peers.registry import Registry, example
from tests.peers.shelf import Shelf
from tests.peers.users import EYE, GROUP, OTHER, ROOT, as_user, group_name, open_folder

__all__ = ["device", "program", "registry"]

MOST = 64 << 10
HEAD: dict[str, Any] = {
    "schema": "pilotwave/label/1",
    "model": "detector",
    "label": 2,
    "inputs": [
        {"name": "x", "dtype": "float32", "shape": [1, 4]},
        {"name": "mask", "dtype": "uint8", "shape": [1, 2]},
    ],
}
BODY = struct.pack("<4f", 0.5, 1.5, -2.0, 3.0) + b"\x01\x00"


@pytest.fixture
def live(tmp_path: Path) -> Path:
    (tmp_path / "live" / "detector").mkdir(parents=True)
    (tmp_path / "live" / FILE).write_bytes(LabelRules(MOST).to_bytes())
    return tmp_path / "live"


@pytest.fixture
def agent(live: Path) -> Iterator[LabelSocket]:
    made = LabelSocket(live, "", most_bytes=MOST)
    yield made
    made.close()


def connected(live: Path) -> socket.socket:
    line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    line.settimeout(10)
    here = os.getcwd()
    os.chdir(live)  # the path of a test's folder is too long for a socket
    try:
        line.connect(LABEL_SOCKET)
    finally:
        os.chdir(here)
    return line


def answer(line: socket.socket) -> dict[str, Any]:
    with line:
        found: dict[str, Any] = json.loads(line.makefile("rb").readline())
        return found


def say(agent: LabelSocket, live: Path, raw: bytes, *, end: bool = False) -> dict[str, Any]:
    line = connected(live)
    line.sendall(raw)
    if end:
        line.shutdown(socket.SHUT_WR)
    agent.turn()
    return answer(line)


def head(**changes: Any) -> bytes:
    found = {**HEAD, **changes}
    return json.dumps({k: v for k, v in found.items() if v is not ...}).encode() + b"\n"


def kept(live: Path) -> list[Path]:
    return sorted(p for p in (live / "detector").iterdir() if p.name.endswith(ENDING))


def test_a_labelled_answer_becomes_an_example_as_files_have_it(
    live: Path, agent: LabelSocket
) -> None:
    assert say(agent, live, head(source="operator") + BODY) == {"kept": True}
    (path,) = kept(live)
    found = read_tensors(path)
    assert set(found) == {"input.x", "input.mask", "label"}
    np.testing.assert_array_equal(found["input.x"], np.float32([[0.5, 1.5, -2.0, 3.0]]))
    assert (found["input.mask"].tolist(), found["label"].tolist()) == ([[1, 0]], [2])
    assert (found["label"].dtype, read_about(path)) == (np.int64, {"source": "operator"})
    assert say(agent, live, head() + BODY) == {"kept": True}
    assert read_about(kept(live)[1]) == {}


def test_an_example_may_come_in_parts(live: Path, agent: LabelSocket) -> None:
    raw = head() + BODY
    line = connected(live)
    for at in range(0, len(raw), 7):
        line.sendall(raw[at : at + 7])
        agent.turn()
    assert answer(line) == {"kept": True}
    assert len(kept(live)) == 1
    assert len(agent.reads) == 1


def test_one_that_is_larger_than_a_datagram_may_be_is_kept(tmp_path: Path, live: Path) -> None:
    (live / FILE).write_bytes(LabelRules(1 << 20).to_bytes())
    agent = LabelSocket(live, "", most_bytes=1 << 20)
    inputs = [{"name": "x", "dtype": "float32", "shape": [1, 3, 224, 224]}]
    line = connected(live)
    line.setblocking(False)
    raw = memoryview(head(inputs=inputs) + bytes(4 * 3 * 224 * 224))
    while raw:
        try:
            raw = raw[line.send(raw) :]
        except BlockingIOError:
            agent.turn()
    line.settimeout(10)
    agent.turn()
    assert answer(line) == {"kept": True}
    agent.close()


X = {"name": "x", "dtype": "float32", "shape": [1, 4]}


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"\n", "expected JSON"),
        (b"\xff\xfe\n", "expected UTF-8"),
        (b"[" * 5000 + b"\n", "levels of nesting"),
        (b"7\n", "expected an object"),
        (b"x" * (MAX_HEAD_BYTES + 1), f"a first line of at most {MAX_HEAD_BYTES} bytes"),
        (b'{"schema": "pilotwave/label/1", "schema": "a"}\n', "came twice"),
        (head(schema="pilotwave/label/2"), "schema: expected pilotwave/label/1"),
        (head(model="../.."), "model: model name: expected"),
        (head(model="other"), "there is no model other"),
        (head(label=-1), "label: expected a whole number from 0"),
        (head(label=1.5), "label: expected a whole number"),
        (head(label=True), "label: expected a whole number"),
        (head(source="../x"), "source: label source: expected"),
        (head(more=1), "unknown field 'more'"),
        (head(inputs=...), "inputs: expected a value"),
        (head(inputs=[]), "inputs: expected one or more"),
        (head(inputs=[X, X]), "each name once"),
        (head(inputs=[X] * 65), "a list of at most 64 items"),
        (head(inputs=[{**X, "dtype": "string"}]), "inputs[0].dtype: expected one of bfloat16"),
        (head(inputs=[{**X, "dtype": "object"}]), "inputs[0].dtype: expected one of"),
        (head(inputs=[{**X, "name": ""}]), "inputs[0].name: expected the input's name"),
        (head(inputs=[{**X, "shape": [0]}]), "inputs[0].shape: expected"),
        (head(inputs=[{**X, "shape": [-1, 4]}]), "inputs[0].shape: expected"),
        (head(inputs=[{**X, "shape": [True]}]), "inputs[0].shape: expected"),
        (head(inputs=[{**X, "shape": [2**31]}]), "inputs[0].shape: expected"),
        (head(inputs=[{**X, "shape": [1] * 9}]), "a list of at most 8 items"),
        (head(inputs=[{**X, "shape": [2**30] * 8}]), f"inputs of at most {MOST} bytes"),
        (head(inputs=[{**X, "shape": [MOST // 4]}]) + bytes(MOST), "an example of at most"),
        (head() + BODY + b"x", "expected 18 bytes behind the first line; more came"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_an_example_is_refused_with_the_reason(
    live: Path, agent: LabelSocket, raw: bytes, words: str
) -> None:
    said = say(agent, live, raw)
    assert said["kept"] is False
    assert words in said["why"]
    assert kept(live) == []
    assert len(agent.reads) == 1
    assert say(agent, live, head() + BODY) == {"kept": True}


def test_half_an_example_is_none(live: Path, agent: LabelSocket) -> None:
    for raw in (b"", head()[:-1], head(), head() + BODY[:-1]):
        said = say(agent, live, raw, end=True)
        assert said == {"kept": False, "why": "the connection ended before the example did"}
    gone = connected(live)
    gone.sendall(head())
    gone.close()
    agent.turn()
    assert (kept(live), len(agent.reads)) == ([], 1)


def test_who_stays_silent_holds_a_place_for_some_seconds_and_no_more_than_four(
    live: Path, agent: LabelSocket
) -> None:
    silent = [connected(live) for _ in range(4)]
    agent.turn()
    refused = say(agent, live, head() + BODY)
    assert refused["kept"] is False
    assert "send it again" in refused["why"]
    for sender in agent._senders:
        sender.until = 0.0  # their time is over
    agent.turn()
    for line in silent:
        assert "within 10 s" in answer(line)["why"]
    assert say(agent, live, head() + BODY) == {"kept": True}


def test_no_more_wait_than_files_may(live: Path, agent: LabelSocket) -> None:
    for number in range(MAX_WAITING):
        (live / "detector" / f"{number}{ENDING}").touch()
    said = say(agent, live, head() + BODY)
    assert said["kept"] is False
    assert said["why"].startswith(f"{MAX_WAITING} examples wait")


def test_nothing_is_kept_once_the_owner_allows_it_no_more(live: Path) -> None:
    agent = LabelSocket(live, "", most_bytes=MOST)
    (live / FILE).unlink()
    said = say(agent, live, head() + BODY)
    assert said == {"kept": False, "why": "the owner of this device allows no learning"}
    agent.close()
    assert not (live / LABEL_SOCKET).exists()


@pytest.mark.skipif(not ROOT, reason="only root can become another user")
def test_a_user_who_may_not_speak_for_a_model_labels_nothing_of_it() -> None:
    with open_folder() as folder:
        live = folder / "live"
        heartbeats.prepare(live, "detector", group_name())
        (live / FILE).write_bytes(LabelRules(MOST).to_bytes())
        agent = LabelSocket(live, group_name(), {"detector": [EYE]}, most_bytes=MOST)

        def label() -> None:
            with connected(live) as line:
                line.sendall(head() + BODY)

        for uid, count in ((OTHER, 0), (EYE, 1)):
            assert as_user(uid, label) == ""
            agent.turn()
            assert len(kept(live)) == count
        assert as_user(EYE, label, groups=(GROUP + 1,)) == "PermissionError"
        agent.close()


# --- with real programs


def test_the_resident_agent_takes_what_an_application_labels(
    registry: Registry, device: Device
) -> None:
    registry.order(registry.publish("detector", "1.0.0", example("1.0.0")))
    settle(device, probation_s=0, keep_free_mb=0)
    with device.config_path.open("a") as file:
        file.write("\n[learn]\nallow = true\nmax_example_kb = 64\n")
    live, examples = device.layout.live, device.layout.examples("detector")
    with resident(device):
        wait_until((live / "detector").exists, "the model")
        wait_until((live / LABEL_SOCKET).is_socket, "the socket")
        line = connected(live)
        line.sendall(head(source="operator") + BODY)
        assert answer(line) == {"kept": True}
        where = ("--config", str(device.config_path))
        assert "detector: 1 labelled examples are kept" in run_agent("status", *where).stdout
        registry.check_ins.clear()
    with resident(device):
        wait_until(lambda: examples.is_dir() and os.listdir(examples), "the example")
    done = run_agent("learn", "forget", "detector", *where)
    assert (done.returncode, done.stdout) == (0, "forgot 1 labelled examples of detector\n")
    assert "labelled" not in run_agent("status", *where).stdout
    assert run_agent("learn", "forget", "../x", *where).returncode == 1


def test_the_c_example_labels_an_answer(program: Path, tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    live = tmp_path / "live"
    heartbeats.prepare(live, "detector", "")
    (live / FILE).write_bytes(LabelRules(MOST).to_bytes())
    shelf.serve(1)
    short = Path("/tmp") / f"pw-label-{os.getpid()}"
    short.symlink_to(tmp_path)
    agent = LabelSocket(live, "", most_bytes=MOST)
    app = subprocess.Popen([program, short, "detector"], stdout=subprocess.PIPE, text=True)
    try:
        until(lambda: agent.turn() or kept(live))
        assert app.stdout
        assert app.stdout.readline().startswith("serving 1.1.0-")
        assert app.stdout.readline() == 'labelled: {"kept": true}\n'
    finally:
        app.terminate()
        until(lambda: agent.turn() or app.poll() is not None)
        agent.close()
        short.unlink()
        app.communicate()
    found = read_tensors(kept(live)[0])
    np.testing.assert_array_equal(found["input.x"], np.float32([[0.5, 1.5, -2.0, 3.0]]))
    assert found["label"].tolist() == [2]
    assert read_about(kept(live)[0]) == {"source": "operator"}
