"""An application's model: it follows the links, drops no call, survives what devices go through.

A test plays the agent: it puts versions into a data folder and sets the links.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pilotwave_agent.live import LiveError, LiveModel, LoadFailed, NoVersion
from tests.peers.shelf import Shelf, X, number_in

SOON_S = 30.0


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    (tmp_path / "live").mkdir()
    return Shelf(tmp_path)


def until(what: Callable[[], Any], timeout_s: float = SOON_S) -> Any:
    ends = time.monotonic() + timeout_s
    while not (found := what()):
        assert time.monotonic() < ends, "it did not come about"
        time.sleep(0.01)
    return found


def said(shelf: Shelf) -> dict[str, Any]:
    """Return what the one process tells the agent."""
    (path,) = (shelf.data / "live" / "detector").glob("*.json")
    found: dict[str, Any] = json.loads(path.read_bytes())
    return found


# --- following


def test_it_opens_what_the_link_names_and_says_whose_the_answer_is(
    shelf: Shelf, opened: Callable[..., LiveModel]
) -> None:
    shelf.serve(1)
    model = opened()
    answer = model.run(X)
    assert number_in(answer) == 1
    assert str(answer.version) == "detector 1.1.0 (onnx)"
    assert model.version == answer.version
    assert [t.name for t in model.inputs] == ["x"]
    assert [t.shape for t in model.outputs] == [(1, 4)]


@pytest.mark.parametrize("inotify", [True, False])
def test_it_follows_a_switch_and_a_way_back(
    shelf: Shelf, opened: Callable[..., LiveModel], inotify: bool
) -> None:
    shelf.serve(1)
    model = opened(inotify=inotify, heartbeat_s=15.0)
    shelf.serve(2)
    assert model.wait_for("1.2.0", SOON_S)
    assert number_in(model.run(X)) == 2
    shelf.back()
    assert model.wait_for("1.1.0", SOON_S)
    assert number_in(model.run(X)) == 1


def test_with_no_version_it_raises_or_waits_as_asked(
    shelf: Shelf, opened: Callable[..., LiveModel]
) -> None:
    with pytest.raises(NoVersion, match="has no version yet"):
        opened(wait_s=0)
    with pytest.raises(NoVersion):
        opened(wait_s=0.2)
    timer = threading.Timer(0.3, lambda: shelf.serve(1))
    timer.start()
    assert number_in(opened(wait_s=None).run(X)) == 1
    timer.join()


def test_one_version_can_be_held_for_several_calls(
    shelf: Shelf, opened: Callable[..., LiveModel]
) -> None:
    shelf.serve(1)
    model = opened()
    with model.pin() as pinned:
        shelf.serve(2)
        assert model.wait_for("1.2.0", SOON_S)
        assert number_in(model.run(X)) == 2
        assert number_in(pinned.run(X)) == 1
        assert pinned.version.version == "1.1.0"


def test_the_old_version_is_closed_when_its_last_call_has_left(
    shelf: Shelf, opened: Callable[..., LiveModel]
) -> None:
    first = shelf.serve(1)
    model = opened()
    with model.pin() as pinned:
        generation = pinned._generation
        shelf.serve(2)
        assert model.wait_for("1.2.0", SOON_S)
        shelf.remove(first)  # the files may go before the last call has left
        assert number_in(pinned.run(X)) == 1
    until(lambda: not generation._all)
    with pytest.raises(LiveError, match="closed"):
        generation.run(X)


def test_coroutines_call_it_without_blocking_each_other(
    shelf: Shelf, opened: Callable[..., LiveModel]
) -> None:
    shelf.serve(1)
    model = opened()

    async def many() -> list[int]:
        answers = await asyncio.gather(*(model.arun(X) for _ in range(50)))
        with model.pin() as pinned:
            answers.append(await pinned.arun(X))
        return [number_in(answer) for answer in answers]

    assert asyncio.run(many()) == [1] * 51


# --- versions that will not do


@pytest.mark.parametrize(
    ("kind", "words"),
    [("broken", "Error|Fail|INVALID"), ("nan", "NaN or infinity"), ("hang", "not loaded within")],
)
def test_a_version_that_will_not_do_is_refused_and_the_one_before_serves_on(
    shelf: Shelf, opened: Callable[..., LiveModel], kind: str, words: str
) -> None:
    import re

    shelf.serve(1)
    model = opened(load_timeout_s=1.0, warmup=X)
    bad = shelf.serve(2, kind)
    refused = until(lambda: model.refused)
    assert list(refused) == [shelf.layout.version("detector", bad).name]
    assert re.search(words, next(iter(refused.values())))
    assert number_in(model.run(X)) == 1
    told = until(lambda: said(shelf)["refused"] and said(shelf))
    assert told["serving"].startswith("1.1.0-")
    assert told["refused"]["name"].startswith("1.2.0-")
    shelf.back()
    shelf.serve(3)
    assert model.wait_for("1.3.0", SOON_S)


def test_an_answer_to_made_up_zeros_says_nothing_against_a_version(
    shelf: Shelf, opened: Callable[..., LiveModel]
) -> None:
    shelf.serve(1)
    model = opened()
    shelf.serve(2, "nan")
    assert model.wait_for("1.2.0", SOON_S)
    assert not model.refused


def test_the_applications_own_check_may_refuse(
    shelf: Shelf, opened: Callable[..., LiveModel]
) -> None:
    shelf.serve(1)
    model = opened(check=lambda outputs: float(outputs["y"].max()) < 2, warmup=X)
    shelf.serve(2)
    assert "check refused" in next(iter(until(lambda: model.refused).values()))
    assert number_in(model.run(X)) == 1


def test_at_a_start_on_a_version_that_will_not_do_the_one_before_serves(
    shelf: Shelf, opened: Callable[..., LiveModel]
) -> None:
    shelf.serve(1)
    shelf.serve(2, "broken")
    model = opened()
    assert number_in(model.run(X)) == 1
    assert len(model.refused) == 1


def test_with_nothing_that_can_be_loaded_it_says_why(
    shelf: Shelf, opened: Callable[..., LiveModel]
) -> None:
    shelf.serve(1, "broken")
    with pytest.raises(LoadFailed, match=r"no version here can be loaded: .+"):
        opened(wait_s=0)


def test_a_refused_version_is_tried_again_when_the_link_is_set_anew(
    shelf: Shelf, opened: Callable[..., LiveModel]
) -> None:
    shelf.serve(1)
    wanted = {"yes": False}
    model = opened(check=lambda outputs: wanted["yes"] or float(outputs["y"].max()) < 2)
    second = shelf.serve(2)
    until(lambda: model.refused)
    wanted["yes"] = True
    shelf.back()
    shelf.switch(second)
    assert model.wait_for("1.2.0", SOON_S)


def test_a_link_set_anew_while_loading_leads_to_the_newest(
    shelf: Shelf, opened: Callable[..., LiveModel]
) -> None:
    shelf.serve(1)
    held = threading.Event()

    def slow(outputs: Any) -> bool:
        return float(outputs["y"].max()) != 2 or held.wait(SOON_S)

    model = opened(check=slow)
    second = shelf.serve(2)
    until(lambda: model._keeper and model._keeper.busy)
    shelf.serve(3)
    assert model.wait_for("1.3.0", SOON_S)
    shelf.remove(second)
    held.set()
    time.sleep(0.2)
    assert number_in(model.run(X)) == 3
    assert not model.refused


def test_a_version_removed_while_loading_is_no_fault(
    shelf: Shelf, opened: Callable[..., LiveModel]
) -> None:
    shelf.serve(1)
    model = opened()
    second, third = shelf.add(2), shelf.add(3)
    for _ in range(20):
        shelf.switch(second)
        shelf.switch(third)
        shelf.remove(second)
        second = shelf.add(2)
    assert model.wait_for("1.3.0", SOON_S)
    assert not model.refused


def test_an_unreadable_version_is_refused_and_read_when_it_can_be(
    shelf: Shelf, opened: Callable[..., LiveModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    from pilotwave_agent.live import follower

    monkeypatch.setattr(follower, "_FIRST_RETRY_S", 0.1)
    first = shelf.serve(1)
    about = shelf.layout.about("detector", first)
    hidden = about.rename(about.with_suffix(".hidden"))
    about.mkdir()  # root may read everything, so a folder stands in for a file it may not read
    with pytest.raises(LoadFailed, match="IsADirectoryError"):
        opened(wait_s=0)
    threading.Timer(0.5, lambda: (about.rmdir(), hidden.rename(about))).start()
    assert number_in(opened(wait_s=None).run(X)) == 1


# --- what the agent is told


def test_the_agent_is_told_what_serves_and_gets_signs_of_life(
    shelf: Shelf, opened: Callable[..., LiveModel]
) -> None:
    version = shelf.serve(1)
    model = opened()
    name = shelf.layout.version("detector", version).name
    until(lambda: said(shelf)["serving"] == name)
    told = said(shelf)
    assert (told["state"], told["pid"], told["app"]) == ("serving", os.getpid(), "test")
    until(lambda: said(shelf)["beat"] > told["beat"])
    model.close()
    assert said(shelf)["state"] == "stopped"


def test_it_serves_where_nothing_can_be_told(
    shelf: Shelf, opened: Callable[..., LiveModel], caplog: pytest.LogCaptureFixture
) -> None:
    desk = shelf.data / "live"
    desk.rmdir()
    desk.write_text("a file where a folder should be")
    shelf.serve(1)
    model = opened(heartbeat_s=0.05)
    for _ in range(3):
        assert number_in(model.run(X)) == 1
        time.sleep(0.1)
    assert [r.message for r in caplog.records if "the agent does not hear" in r.message] != []
    assert len(caplog.records) == 1
    desk.unlink()
    desk.mkdir()
    until(lambda: list(desk.glob("detector/*.json")))
    until(lambda: list(desk.glob("detector/*.window")))


def test_windows_hold_latency_errors_and_scores_of_the_version_that_answered(
    shelf: Shelf, opened: Callable[..., LiveModel]
) -> None:
    shelf.serve(1)
    model = opened()
    old = model.run(X)
    shelf.serve(2)
    assert model.wait_for("1.2.0", SOON_S)
    for _ in range(9):
        model.score(0.9, model.run(X))
    model.score(0.1, old)
    with pytest.raises(Exception, match=r"."):
        model.run({"wrong": X["x"]})
    with pytest.raises(ValueError, match="measured by the SDK"):
        model.score(1.0, metric="error")
    model.close()
    counts: dict[tuple[str, str], int] = {}
    for path in (shelf.data / "live" / "detector").glob("*.window"):
        window = json.loads(path.read_bytes())
        for metric, plain in window["sketches"].items():
            key = (window["version"][:5], metric)
            counts[key] = counts.get(key, 0) + plain["zero"] + sum(plain["above"][1::2])
    assert counts == {
        ("1.1.0", "latency_ms"): 1,
        ("1.1.0", "error"): 1,
        ("1.1.0", "score"): 1,
        ("1.2.0", "latency_ms"): 9,
        ("1.2.0", "error"): 10,
        ("1.2.0", "score"): 9,
    }


def test_a_window_that_nobody_takes_is_added_to_and_one_that_was_taken_is_not(
    shelf: Shelf, opened: Callable[..., LiveModel]
) -> None:
    shelf.serve(1)
    model = opened(heartbeat_s=60.0)
    desk = shelf.data / "live" / "detector"

    def waiting() -> list[dict[str, Any]]:
        return [json.loads(p.read_bytes()) for p in desk.glob("*.window")]

    def calls(window: dict[str, Any]) -> int:
        return int(window["sketches"]["error"]["zero"])

    for total in (1, 2):
        model.run(X)
        model._recorder.flush()
        assert [calls(w) for w in waiting()] == [total]
    (path,) = desk.glob("*.window")
    path.rename(path.with_suffix(".taken"))
    model.run(X)
    model._recorder.flush()
    assert [calls(w) for w in waiting()] == [1]


# --- processes


def test_a_forked_child_loads_for_itself_and_its_parent_serves_on(
    shelf: Shelf, opened: Callable[..., LiveModel]
) -> None:
    shelf.serve(1)
    model = opened()
    assert number_in(model.run(X)) == 1
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writer, b"%d" % number_in(model.run(X)))
            model.close()
        finally:
            os._exit(0)
    os.close(writer)
    assert os.read(reader, 8) == b"1"
    os.close(reader)
    assert os.waitpid(child, 0)[1] == 0
    shelf.serve(2)
    assert model.wait_for("1.2.0", SOON_S)
    files = [json.loads(p.read_bytes()) for p in (shelf.data / "live/detector").glob("*.json")]
    assert {f["pid"]: f["state"] for f in files} == {os.getpid(): "serving", child: "stopped"}


PROGRAM = """
import sys
from pilotwave_agent.live import LiveModel
import numpy as np
model = LiveModel("detector", data=sys.argv[1], app="program")
model.run({"x": np.ones((1, 4), np.float32)})
print("ready", flush=True)
exec(sys.argv[2])
"""


@pytest.mark.parametrize(
    ("ending", "state"),
    [
        ("pass", "stopped"),
        ("sys.exit(3)", "stopped"),
        ("raise RuntimeError('the new model is bad')", "crashed"),
        ("import os; os.abort()", "serving"),
    ],
)
def test_how_a_process_ended_can_be_seen(shelf: Shelf, ending: str, state: str) -> None:
    shelf.serve(1)
    command = [sys.executable, "-c", PROGRAM, str(shelf.data), ending]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.stdout == "ready\n", ended.stderr
    assert said(shelf)["state"] == state


def test_importing_it_imports_nothing_that_costs() -> None:
    heavy = ("numpy", "tuf", "cryptography", "asyncio", "urllib3", "onnxruntime", "logging")
    code = f"import sys, pilotwave_agent.live; print([m for m in {heavy!r} if m in sys.modules])"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout == "[]\n"
