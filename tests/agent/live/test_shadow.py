"""A candidate beside the version that serves: what it is given, what it may take, and that nothing
it does reaches a call.

A test plays the agent, as in `test_live_model`.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pilotwave_agent.live import LiveModel
from pilotwave_agent.live.recorder import SCHEMA
from pilotwave_agent.live.shadow_limits import ShadowLimits
from pilotwave_agent.live.shadow_orders import read_orders
from pilotwave_protocol import shadow
from pilotwave_protocol.sketch import Sketch
from tests.peers.shelf import HANGS, HOGS, NAN, RAISES, Shelf, X, number_in

SOON_S = 60.0
RELATIVE = {"by": "relative_l2", "output": "y", "tolerance": "0.01"}


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    (tmp_path / "live").mkdir()
    made = Shelf(tmp_path)
    made.serve(1)
    return made


@pytest.fixture(autouse=True)
def hurried(request: pytest.FixtureRequest) -> Iterator[None]:
    """Give the children a processor, where root may: they run when nothing else wants one, and
    other tests do."""
    ends = threading.Event()

    def hurry() -> None:
        while not ends.wait(0.05):
            for pid in children():
                with contextlib.suppress(OSError):
                    os.sched_setscheduler(pid, os.SCHED_OTHER, os.sched_param(0))
                    os.setpriority(os.PRIO_PROCESS, pid, 0)

    thread = threading.Thread(target=hurry)
    if request.function is not test_the_child_runs_last_and_is_the_first_to_go:
        thread.start()
    yield
    ends.set()
    if thread.ident:
        thread.join()


def until(what: Callable[[], Any]) -> Any:
    ends = time.monotonic() + SOON_S
    while not (found := what()):
        assert time.monotonic() < ends, "it did not come about"
        time.sleep(0.01)
    return found


def measured(shelf: Shelf, version: str) -> dict[str, Sketch]:
    """Return what the agent would find of a version now."""
    found: dict[str, Sketch] = {}
    for path in (shelf.data / "live" / "detector").glob("*.window"):
        try:
            words = json.loads(path.read_bytes())
        except FileNotFoundError:
            continue  # the application has just added to it
        assert words["schema"] == SCHEMA
        if words["version"] == version:
            for metric, plain in words["sketches"].items():
                found.setdefault(metric, Sketch()).merge(Sketch.from_plain(plain))
    return found


def calls_until(model: LiveModel, what: Callable[[], Any], feeds: Any = X, number: int = 1) -> Any:
    """Call the model, which must answer with the serving version's number, until something is."""
    ends = time.monotonic() + SOON_S
    while not (found := what()):
        assert number_in(model.run(feeds)) == number
        assert time.monotonic() < ends, "it did not come about"
        time.sleep(0.005)
    return found


def count(shelf: Shelf, version: str, metric: str) -> int:
    found = measured(shelf, version).get(metric)
    return found.count if found else 0


def test_figures_of_the_pair_are_counted_for_the_candidate(
    shelf: Shelf, opened: Callable[..., LiveModel]
) -> None:
    model = opened()
    shelf.shadow(shelf.add(2))

    def whole() -> dict[str, Sketch] | None:
        found = measured(shelf, "1.2.0")
        return found if set(found) == {*shadow.SHADOW_METRICS} else None

    calls_until(model, lambda: count(shelf, "1.2.0", shadow.DISAGREE) >= 20)
    found = calls_until(model, whole)
    assert (found[shadow.ERROR].max, found[shadow.NONFINITE].max) == (0, 0)
    assert found[shadow.DISAGREE].max == 0  # the largest of four equal numbers is the first
    assert found[shadow.DISTANCE].mean == pytest.approx(1.0, rel=0.02)  # all are 2 instead of 1
    assert 0.2 < found[shadow.LATENCY_RATIO].quantile(0.5) < 5
    assert 0.9 < found[shadow.MEMORY_RATIO].mean < 1.1
    assert found[shadow.SCORE_CHANGE].mean == 0


def odd(place: int, value: float) -> dict[str, Any]:
    """Return an input that has the odd candidate do something odd."""
    x = np.ones((1, 4), np.float32)
    x[0, place] = value
    return {"x": x}


def children() -> list[int]:
    """Return the processes that try a candidate for this one."""
    found: list[int] = []
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):  # a thread that has just ended
            found += [int(pid) for pid in (task / "children").read_text().split()]
    return [pid for pid in found if _tries(pid)]


def _tries(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return b"shadow_child" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


def said(shelf: Shelf) -> dict[str, str]:
    """Return what the one process tells the agent of its trial."""
    for path in (shelf.data / "live" / "detector").glob("test-*.json"):
        found: dict[str, str] = json.loads(path.read_bytes()).get("shadow") or {}
        return found
    return {}


# --- what a candidate does reaches no call


@pytest.mark.parametrize(
    ("feeds", "metric"),
    [
        (odd(RAISES, 9), shadow.ERROR),
        (odd(NAN, -1), shadow.NONFINITE),
        (odd(NAN, -1), shadow.DISAGREE),
        (odd(HOGS, 1e13), shadow.ERROR),
    ],
)
def test_a_bad_answer_is_counted_and_the_trial_goes_on(
    shelf: Shelf, opened: Callable[..., LiveModel], feeds: Any, metric: str
) -> None:
    model = opened()
    shelf.shadow(shelf.add(2, "odd"))
    calls_until(model, lambda: count(shelf, "1.2.0", shadow.DISAGREE))
    (child,) = children()

    def bad() -> bool:
        found = measured(shelf, "1.2.0").get(metric)
        return bool(found and found.max == 1)

    calls_until(model, bad, feeds)
    before = count(shelf, "1.2.0", shadow.DISTANCE)
    calls_until(model, lambda: count(shelf, "1.2.0", shadow.DISTANCE) > before)
    assert children() == [child]


def test_a_candidate_that_crashes_is_an_error_and_starts_again(
    shelf: Shelf, opened: Callable[..., LiveModel]
) -> None:
    model = opened()
    shelf.shadow(shelf.add(2, "odd"))
    calls_until(model, lambda: count(shelf, "1.2.0", shadow.DISAGREE) > 25)
    (child,) = children()
    calls_until(model, lambda: memory_of(child) == b"c", odd(HANGS, 1e7))
    os.kill(child, signal.SIGSEGV)
    calls_until(model, lambda: children() not in ([child], []))
    found = calls_until(model, lambda: said(shelf).get("sentence"))
    assert found == "the candidate was ended by signal 11"
    before = count(shelf, "1.2.0", shadow.DISAGREE)
    calls_until(model, lambda: count(shelf, "1.2.0", shadow.DISAGREE) > before)
    assert measured(shelf, "1.2.0")[shadow.ERROR].sum == 1


def memory_of(child: int) -> bytes:
    """Return the byte by which a child says which version is at work."""
    for fd in Path(f"/proc/{child}/fd").iterdir():
        with contextlib.suppress(OSError):
            if "pilotwave-shadow" in os.readlink(fd):
                with fd.open("rb") as memory:
                    return memory.read(1)
    return b""


def test_a_child_that_is_killed_between_calls_is_no_error_of_the_candidate(
    shelf: Shelf, opened: Callable[..., LiveModel]
) -> None:
    model = opened()
    shelf.shadow(shelf.add(2))
    calls_until(model, lambda: count(shelf, "1.2.0", shadow.DISAGREE))
    (child,) = children()
    until(lambda: memory_of(child) == b"-")
    os.kill(child, signal.SIGKILL)
    calls_until(model, lambda: children() not in ([child], []))
    before = count(shelf, "1.2.0", shadow.DISAGREE)
    calls_until(model, lambda: count(shelf, "1.2.0", shadow.DISAGREE) > before)
    assert measured(shelf, "1.2.0")[shadow.ERROR].max == 0


def test_a_candidate_that_hangs_is_ended(shelf: Shelf, opened: Callable[..., LiveModel]) -> None:
    model = opened()
    shelf.shadow(shelf.add(2, "odd"))
    calls_until(model, lambda: count(shelf, "1.2.0", shadow.DISAGREE))
    (child,) = children()
    calls_until(model, lambda: children() != [child], odd(HANGS, 1e12))
    found = calls_until(model, lambda: said(shelf).get("sentence"))
    assert found == "the candidate did not answer within 1 s"
    calls_until(model, lambda: measured(shelf, "1.2.0")[shadow.ERROR].max == 1)


def test_a_candidate_that_cannot_be_loaded_is_given_up(
    shelf: Shelf, opened: Callable[..., LiveModel]
) -> None:
    model = opened()
    shelf.shadow(shelf.add(2, "broken"))
    calls_until(model, lambda: said(shelf).get("sentence", "").startswith("given up"))
    assert "the candidate cannot be loaded: " in said(shelf)["sentence"]
    before = count(shelf, "1.2.0", shadow.ERROR)
    calls_until(model, lambda: count(shelf, "1.2.0", shadow.ERROR) > before)
    assert measured(shelf, "1.2.0")[shadow.ERROR].min == 1
    assert children() == []


# --- what is handed over


def test_no_input_is_in_any_file(shelf: Shelf, opened: Callable[..., LiveModel]) -> None:
    model = opened()
    shelf.shadow(shelf.add(2, "odd"))
    secret = np.array([[1.0, 1.2345678, 1.0, 1.0]], np.float32)
    texts = (b"1.2345678", b"1.23456", secret.tobytes()[4:8])
    calls_until(model, lambda: count(shelf, "1.2.0", shadow.DISAGREE) >= 20, {"x": secret})
    model.close()
    searched = [p for p in shelf.data.rglob("*") if p.is_file() and "versions" not in p.parts]
    assert any(p.suffix == ".window" for p in searched)
    for path in searched:
        assert not any(text in path.read_bytes() for text in texts), path


def test_inputs_are_those_of_the_call(shelf: Shelf, opened: Callable[..., LiveModel]) -> None:
    model = opened()
    shelf.shadow(shelf.add(2, "odd"))
    buffer = np.ones((1, 4), np.float32)
    ends = time.monotonic() + SOON_S
    while count(shelf, "1.2.0", shadow.DISAGREE) < 50:
        buffer[:] = 1.0
        model.run({"x": buffer})
        buffer[:] = -1.0  # the application fills its buffer with the next frame
        time.sleep(0.002)
        assert time.monotonic() < ends
    found = measured(shelf, "1.2.0")
    assert (found[shadow.NONFINITE].max, found[shadow.ERROR].max) == (0, 0)


def test_what_comes_while_the_child_is_busy_is_counted_and_dropped(
    shelf: Shelf, opened: Callable[..., LiveModel]
) -> None:
    model = opened()
    shelf.shadow(shelf.add(2, "odd"))
    calls_until(model, lambda: count(shelf, "1.2.0", shadow.DISAGREE))
    for _ in range(300):
        model.run(odd(HANGS, 3e4))
    model.close()
    found = measured(shelf, "1.2.0")[shadow.DROPPED]
    assert found.sum > 200
    assert found.count - found.sum >= 2


def test_of_the_sample_alone(shelf: Shelf, opened: Callable[..., LiveModel]) -> None:
    model = opened()
    shelf.shadow(shelf.add(2), share=0.1)
    calls_until(model, lambda: count(shelf, "1.2.0", shadow.DISAGREE))
    before = count(shelf, "1.2.0", shadow.DROPPED)
    for _ in range(1000):
        model.run(X)
    model.close()
    assert 50 < count(shelf, "1.2.0", shadow.DROPPED) - before < 200


def test_a_trial_takes_its_share_of_a_core(shelf: Shelf, opened: Callable[..., LiveModel]) -> None:
    model = opened()
    shelf.shadow(shelf.add(2, "odd"), cpu=0.05)
    calls_until(model, lambda: count(shelf, "1.2.0", shadow.DISAGREE))
    (child,) = children()
    begun, before = time.monotonic(), cpu_s(child)
    while time.monotonic() < begun + 4:
        model.run(odd(HANGS, 1e4))
        time.sleep(0.001)
    assert cpu_s(child) - before < 0.05 * (4 + 10) + 0.1  # what was saved before may be spent


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_the_application_may_compare_by_itself(
    shelf: Shelf, opened: Callable[..., LiveModel]
) -> None:
    def near(ours: Any, theirs: Any) -> bool:
        return bool(abs(ours["y"] - theirs["y"]).max() < 0.5)

    model = opened(compare=near)
    shelf.shadow(shelf.add(2))
    calls_until(model, lambda: count(shelf, "1.2.0", shadow.DISAGREE))
    assert measured(shelf, "1.2.0")[shadow.DISAGREE].min == 1


def test_the_applications_check_is_asked_of_the_candidate(
    shelf: Shelf, opened: Callable[..., LiveModel]
) -> None:
    seen: list[int] = []

    def check(outputs: Any) -> bool:
        seen.append(number_in(outputs))
        return seen[-1] != 3

    model = opened(check=check)
    shelf.shadow(shelf.add(2))
    calls_until(model, lambda: count(shelf, "1.2.0", shadow.DISAGREE))
    assert set(seen) == {1, 2}
    shelf.shadow(shelf.add(3))
    calls_until(model, lambda: said(shelf).get("sentence", "").startswith("given up"))
    refused = "given up: the candidate is refused by the application's check"
    assert said(shelf)["sentence"] == refused
    before = count(shelf, "1.3.0", shadow.ERROR)
    calls_until(model, lambda: count(shelf, "1.3.0", shadow.ERROR) > before)
    assert measured(shelf, "1.3.0")[shadow.ERROR].min == 1
    assert count(shelf, "1.3.0", shadow.DISAGREE) == 0


def test_a_check_that_raises_refuses_the_candidate(
    shelf: Shelf, opened: Callable[..., LiveModel]
) -> None:
    def check(outputs: Any) -> None:
        if number_in(outputs) != 1:
            raise KeyError("boxes")

    model = opened(check=check)
    shelf.shadow(shelf.add(2))
    words = "the candidate is refused by the application's check: KeyError: 'boxes'"
    calls_until(model, lambda: said(shelf).get("sentence") == words)


def test_a_candidate_is_warmed_up_by_the_applications_inputs(
    shelf: Shelf, opened: Callable[..., LiveModel]
) -> None:
    """On these the candidate raises, as it would when it is switched to; on zeros it does not."""
    model = opened(warmup=odd(RAISES, 9))
    shelf.shadow(shelf.add(2, "odd"))
    calls_until(model, lambda: "cannot be loaded" in said(shelf).get("sentence", ""))
    calls_until(model, lambda: count(shelf, "1.2.0", shadow.ERROR))
    assert count(shelf, "1.2.0", shadow.DISAGREE) == 0


def test_a_candidate_alone_is_compared_with_the_applications_answers(
    shelf: Shelf, opened: Callable[..., LiveModel]
) -> None:
    """As where there is no room for both: the child cannot open the version that serves."""
    model = opened(compare=lambda ours, theirs: number_in(ours) + 1 == number_in(theirs))
    serving = shelf.layout.version("detector", shelf.current) / "model.onnx"
    serving.write_bytes(serving.read_bytes()[:40])
    shelf.shadow(shelf.add(2))
    calls_until(model, lambda: count(shelf, "1.2.0", shadow.DISAGREE) >= 5)
    found = measured(shelf, "1.2.0")
    assert (found[shadow.DISAGREE].max, found[shadow.ERROR].max) == (0, 0)
    assert found[shadow.DISTANCE].mean == pytest.approx(1.0, rel=0.02)
    assert not found.keys() & {shadow.LATENCY_RATIO, shadow.MEMORY_RATIO}


def test_the_application_may_score_by_itself(
    shelf: Shelf, opened: Callable[..., LiveModel]
) -> None:
    model = opened(score=number_in)
    shelf.shadow(shelf.add(3))
    calls_until(model, lambda: count(shelf, "1.3.0", shadow.SCORE_CHANGE) >= 3)
    found = measured(shelf, "1.3.0")
    assert found[shadow.SCORE_CHANGE].mean == pytest.approx(2.0, rel=0.02)
    assert found[shadow.DISAGREE].max == 0  # that is for the manifest to say


def test_a_score_that_raises_is_left_out_and_told(
    shelf: Shelf, opened: Callable[..., LiveModel]
) -> None:
    model = opened(score=lambda outputs: outputs["boxes"])
    shelf.shadow(shelf.add(2))
    words = "the application's score: KeyError: 'boxes'"
    calls_until(model, lambda: said(shelf).get("sentence") == words)
    calls_until(model, lambda: count(shelf, "1.2.0", shadow.DISAGREE))
    assert count(shelf, "1.2.0", shadow.SCORE_CHANGE) == 0


def test_the_manifest_says_how_answers_are_compared(
    shelf: Shelf, opened: Callable[..., LiveModel]
) -> None:
    version = shelf.add(2)
    about = shelf.layout.about("detector", version)
    about.write_text(json.dumps({**json.loads(about.read_text()), "compare": RELATIVE}))
    model = opened()
    shelf.shadow(version)
    calls_until(model, lambda: count(shelf, "1.2.0", shadow.DISAGREE))
    assert measured(shelf, "1.2.0")[shadow.DISAGREE].min == 1  # 2 is not within 1 % of 1


def test_no_metric_of_an_applications_own_looks_like_a_trials(
    shelf: Shelf, opened: Callable[..., LiveModel]
) -> None:
    with pytest.raises(ValueError, match="shadow_ begins what shadow trials measure"):
        opened().score(1.0, metric="shadow_disagree")


# --- beginnings and ends


def test_the_child_runs_last_and_is_the_first_to_go(
    shelf: Shelf, opened: Callable[..., LiveModel]
) -> None:
    model = opened()
    shelf.shadow(shelf.add(2))
    calls_until(model, lambda: count(shelf, "1.2.0", shadow.DISAGREE))
    (child,) = children()
    assert os.getpriority(os.PRIO_PROCESS, child) == 19
    assert os.sched_getscheduler(child) == os.SCHED_IDLE
    assert Path(f"/proc/{child}/oom_score_adj").read_text() == "1000\n"


def test_a_trial_ends_with_the_orders(shelf: Shelf, opened: Callable[..., LiveModel]) -> None:
    model = opened(heartbeat_s=15.0)
    shelf.shadow(shelf.add(2))
    calls_until(model, children)
    shelf.shadow(None)
    until(lambda: not children())
    shelf.shadow(shelf.add(3))
    calls_until(model, children)
    model.close()
    assert not children()


def test_a_switch_to_another_version_begins_the_trial_anew(
    shelf: Shelf, opened: Callable[..., LiveModel]
) -> None:
    model = opened()
    shelf.shadow(shelf.add(2))
    calls_until(model, lambda: count(shelf, "1.2.0", shadow.DISAGREE))
    (child,) = children()
    shelf.serve(3)
    assert model.wait_for("1.3.0", SOON_S)
    calls_until(model, lambda: children() not in ([child], []), number=3)
    before = measured(shelf, "1.2.0")[shadow.DISAGREE].count
    calls_until(model, lambda: count(shelf, "1.2.0", shadow.DISAGREE) > before, number=3)


def test_a_candidate_that_is_switched_to_is_no_candidate(
    shelf: Shelf, opened: Callable[..., LiveModel]
) -> None:
    model = opened()
    version = shelf.add(2)
    shelf.shadow(version)
    calls_until(model, children)
    shelf.switch(version)
    assert model.wait_for("1.2.0", SOON_S)
    until(lambda: not children())


def test_a_fork_leaves_the_trial_to_its_parent(
    shelf: Shelf, opened: Callable[..., LiveModel]
) -> None:
    model = opened()
    shelf.shadow(shelf.add(2))
    calls_until(model, lambda: count(shelf, "1.2.0", shadow.DISAGREE))
    before = children()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            numbers = {number_in(model.run(X)) for _ in range(50)}
            time.sleep(1)  # for as long as a trial of its own would take to begin
            os.write(writer, json.dumps([sorted(numbers), children()]).encode())
            model.close()
        finally:
            os._exit(0)
    os.close(writer)
    assert os.read(reader, 80) == b"[[1], []]"
    os.close(reader)
    assert os.waitpid(child, 0)[1] == 0
    assert children() == before
    seen = count(shelf, "1.2.0", shadow.DISAGREE)
    calls_until(model, lambda: count(shelf, "1.2.0", shadow.DISAGREE) > seen)


def test_of_several_processes_one_tries_and_another_takes_over(
    shelf: Shelf, opened: Callable[..., LiveModel]
) -> None:
    first, second = opened(), opened()
    shelf.shadow(shelf.add(2))

    def call() -> list[int]:
        second.run(X)
        return children()

    calls_until(first, call)
    time.sleep(1)
    (child,) = call()
    owner = first if first._shadow and first._shadow.said else second
    other = second if owner is first else first
    owner.close()
    calls_until(other, lambda: children() not in ([child], []))


def test_the_child_dies_with_a_killed_application(shelf: Shelf) -> None:
    shelf.shadow(shelf.add(2))
    code = (
        "import sys, time; from pilotwave_agent.live import LiveModel;"
        "import numpy as np; m = LiveModel('detector', data=sys.argv[1], wait_s=60);"
        "x = {'x': np.ones((1, 4), np.float32)}\n"
        "while True: m.run(x); time.sleep(0.01)"
    )
    program = subprocess.Popen([sys.executable, "-c", code, str(shelf.data)])

    def child() -> str:
        return Path(f"/proc/{program.pid}/task/{program.pid}/children").read_text() or "".join(
            (t / "children").read_text() for t in Path(f"/proc/{program.pid}/task").iterdir()
        )

    pid = int(until(child).split()[0])
    until(lambda: b"shadow_child" in Path(f"/proc/{pid}/cmdline").read_bytes())
    program.kill()
    program.wait()
    until(lambda: not Path(f"/proc/{pid}").exists())


def test_orders_of_anybody_else_are_none(shelf: Shelf, opened: Callable[..., LiveModel]) -> None:
    """The file lies where others may write: it counts only beside the agent's link."""
    model = opened()
    shelf.shadow(shelf.add(2))
    path = shelf.data / "live" / "detector" / shadow.SHADOW_FILE
    written = path.read_text()
    for bad in ("", "[]", "{}", "7", written.replace("1.2.0", "1.3.0"), written[:40], "[" * 9000):
        path.write_text(bad)
        assert read_orders(model._links) is None, bad
    path.write_text(written)
    if os.geteuid() == 0:
        os.chown(path, 12345, 12345)
        assert read_orders(model._links) is None
        os.chown(path, 0, 0)
    assert read_orders(model._links) is not None
    (shelf.data / "models" / "detector" / "shadow").unlink()
    assert read_orders(model._links) is None


# --- limits


def test_a_share_of_a_core_is_kept_to_and_saved_up_for_seconds_only() -> None:
    limits = ShadowLimits(0.1, 0.0, Path("/nowhere"))
    assert limits.has_room(1.0)
    limits.used(0.5)
    assert not limits.has_room(4.9)
    assert limits.has_room(5.1)
    limits = ShadowLimits(0.1, 0.0, Path("/nowhere"))
    assert limits.has_room(1000.0)
    limits.used(1.5)  # an idle hour allows no more than some seconds' worth
    assert not limits.has_room(1001.0)
    assert limits.has_room(1006.0)


def test_nothing_is_tried_on_a_hot_device_or_a_low_battery(tmp_path: Path) -> None:
    zone = tmp_path / "sys/class/thermal/thermal_zone0"
    zone.mkdir(parents=True)
    for name, words in (("type", "cpu"), ("trip_point_0_type", "passive")):
        (zone / name).write_text(words)
    (zone / "trip_point_0_temp").write_text("85000")
    limits = ShadowLimits(1.0, 0.0, tmp_path)
    for at, (degrees, spared) in enumerate([("50000", False), ("84000", True), ("50000", False)]):
        (zone / "temp").write_text(degrees)
        limits.look(at * 20.0)
        assert limits.spared is spared, degrees
        assert limits.has_room(at * 20.0 + 1) is not spared
    battery = tmp_path / "sys/class/power_supply/BAT0"
    battery.mkdir(parents=True)
    for charge, status, spared in (
        ("80", "Discharging", False),
        ("20", "Discharging", True),
        ("20", "Charging", False),
    ):
        for name, words in (("type", "Battery"), ("capacity", charge), ("status", status)):
            (battery / name).write_text(words)
        limits = ShadowLimits(1.0, 0.0, tmp_path)
        limits.look(1.0)
        assert limits.spared is spared, (charge, status)


FROZEN = """
import sys, time
sys.executable, sys.frozen = sys.argv[1], True
from pilotwave_agent.live import LiveModel
import numpy as np
model = LiveModel("detector", data=sys.argv[2], app="test", wait_s=60, heartbeat_s=0.2)
ends = time.monotonic() + 20
while time.monotonic() < ends and not (model._shadow.said or {}).get("sentence"):
    model.run({"x": np.ones((1, 4), np.float32)})
    time.sleep(0.01)
print(model._shadow.said["sentence"])
"""


def test_a_program_with_python_inside_does_not_start_itself_again(
    shelf: Shelf, tmp_path: Path
) -> None:
    shelf.shadow(shelf.add(2))
    program, mark = tmp_path / "camera", tmp_path / "started"
    program.write_text(f"#!/bin/sh\ntouch {mark}\n")
    program.chmod(0o755)
    words = [sys.executable, "-c", FROZEN, program, shelf.data]
    done = subprocess.run(words, capture_output=True, text=True, timeout=SOON_S, check=True)
    assert "cannot be started: no Python interpreter beside this program" in done.stdout
    assert not mark.exists()
