"""`Tiered`: hard inputs get the bigger model's answer where publisher and owner agree; whatever the
network does, the small model's answer is there in time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pilotwave_agent.check_in.metrics import Telemetry
from pilotwave_agent.host.disk import Disk
from pilotwave_agent.live.tiers import Tiered
from pilotwave_protocol.escalate import EscalateBudget, Escalation, Target
from pilotwave_protocol.sketch import Sketch
from tests.agent.live.test_capture import RULES, files, open_case
from tests.peers.inference import Answer, InferenceServer, changed
from tests.peers.shelf import Shelf, write_taking_bytes
from tests.peers.tiers import DIGITS, SAID, allow, images, serve

SOON_S = 30.0


@pytest.fixture(scope="module", name="images")
def some_images() -> tuple[np.ndarray, np.ndarray]:
    return images()


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    (tmp_path / "live").mkdir()
    return Shelf(tmp_path)


@pytest.fixture
def peer() -> Iterator[InferenceServer]:
    server = InferenceServer(DIGITS / "1.1.0" / "model.onnx", "detector-big", "1.1.0")
    with server.running():
        yield server


@contextmanager
def opened(shelf: Shelf) -> Iterator[Tiered]:
    with Tiered("detector", data=shelf.data, app="test", wait_s=SOON_S) as model:
        yield model


def counted(shelf: Shelf) -> dict[str, Sketch]:
    """What the windows say that the agent takes."""
    found: dict[str, Sketch] = {}
    for path in (shelf.data / "live" / "detector").glob("*.window"):
        for metric, plain in json.loads(path.read_bytes())["sketches"].items():
            found.setdefault(metric, Sketch()).merge(Sketch.from_plain(plain))
    return found


def test_importing_the_sdk_brings_no_network_with_it() -> None:
    code = (
        "import sys, pilotwave_agent.live; "
        "bad = {'http.client', 'pilotwave_agent.net', 'pilotwave_agent.live.tiers'}; "
        "print(*(bad & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "")


def test_hard_inputs_get_the_bigger_models_answer_and_all_is_counted(
    shelf: Shelf, peer: InferenceServer, images: tuple[np.ndarray, np.ndarray]
) -> None:
    serve(shelf)
    allow(shelf, peer.url)
    right = {"device": 0, "site": 0, "small": 0}
    many = {"device": 0, "site": 0}
    with opened(shelf) as model:
        for x, label in zip(*images, strict=True):
            answer = model.predict(x)
            many[answer.tier] += 1
            right[answer.tier] += answer["probs"].argmax() == label
            right["small"] += answer.device["probs"].argmax() == label
            names = {"site": ("detector-big", "1.1.0"), "device": ("detector", "1.0.0")}
            assert (answer.model, answer.version) == names[answer.tier]
            assert answer["probs"].dtype == np.float32
        assert model.trouble == ""
    assert 100 < many["site"] < 600
    assert right["device"] + right["site"] > right["small"] + 30
    assert peer.connections <= 4  # they are kept
    said = counted(shelf)
    assert said["escalated"].count == sum(many.values())
    assert said["escalated"].sum == many["site"]
    assert (said["escalate_failed"].count, said["escalate_failed"].sum) == (many["site"], 0)
    assert said["escalate_ms"].count == many["site"] == said["overruled"].count
    assert 30 < said["overruled"].sum < many["site"]
    telemetry = Telemetry(Disk(), shelf.layout.live, shelf.layout.telemetry)
    telemetry.collect(time.time())  # as the agent does before each check-in
    reported = {r.metric: r.sketch.count for r in telemetry.pending() if r.version == "1.0.0"}
    assert reported["escalated"] == said["escalated"].count
    assert {"escalate_ms", "escalate_failed", "overruled"} < reported.keys()


def test_overruled_inputs_are_captured_with_both_answers_where_the_owner_wants_them(
    shelf: Shelf, peer: InferenceServer, images: tuple[np.ndarray, np.ndarray]
) -> None:
    serve(shelf)
    allow(shelf, peer.url)
    rules = replace(RULES, reasons=("overruled",))
    shelf.layout.capture_rules.write_bytes(rules.to_bytes())
    asked = {}
    with opened(shelf) as model:
        for x in images[0][:100]:
            answer = model.predict(x)
            classes = {int(a["probs"].argmax()) for a in (answer, answer.device)}
            if len(classes) > 1:
                asked[np.asarray(x, np.float32).tobytes()] = classes
            time.sleep(0.02)  # cases are written beside the calls
    found = files(shelf)
    assert 0 < len(found) <= len(asked)
    for path in found:
        case, tensors = open_case(path)
        assert case.reason == "overruled"
        both = {int(tensors[f"output.{n}"].argmax()) for n in ("probs", "bigger.probs")}
        assert asked[tensors["input.x"].tobytes()] == both


def test_a_server_without_the_binary_extension_is_asked_in_json(
    shelf: Shelf, images: tuple[np.ndarray, np.ndarray]
) -> None:
    serve(shelf, replace(SAID, threshold="1"))
    server = InferenceServer(DIGITS / "1.1.0" / "model.onnx", "detector-big", "1.1.0", binary=False)
    with server.running(), opened(shelf) as model:
        allow(shelf, server.url)
        answer = model.predict(images[0][0])
        assert answer.tier == "site", model.trouble
    assert "data" in server.asked[0]["inputs"][0]


@pytest.mark.parametrize(
    ("said", "rules", "why"),
    [
        (None, True, "has no escalate.json"),
        (SAID, False, "allows none of site"),
        (replace(SAID, to=(Target("cloud", "detector-big"),)), True, "allows none of cloud"),
    ],
)
def test_without_the_word_of_both_nothing_leaves(
    shelf: Shelf,
    peer: InferenceServer,
    images: tuple[np.ndarray, np.ndarray],
    said: Escalation | None,
    rules: bool,
    why: str,
) -> None:
    serve(shelf, said)
    if rules:
        allow(shelf, peer.url)
    with opened(shelf) as model:
        assert {model.predict(x).tier for x in images[0][:50]} == {"device"}
        assert why in model.trouble
    assert (peer.asked, peer.connections) == ([], 0)
    assert "escalated" not in counted(shelf)


def test_a_signed_file_that_is_none_escalates_nothing(shelf: Shelf, peer: InferenceServer) -> None:
    files = {"model.onnx": (DIGITS / "1.0.0" / "model.onnx").read_bytes()}
    evil = json.loads(SAID.to_bytes()) | {"site": peer.url}
    shelf.switch(shelf.add_files(0, files | {"escalate.json": json.dumps(evil).encode()}))
    allow(shelf, peer.url)
    with opened(shelf) as model:
        assert model.predict(np.zeros((1, 64), np.float32)).tier == "device"
        assert "unknown field 'site'" in model.trouble
    assert peer.connections == 0


HUGE = [1, 1 << 40]
BROKEN: list[tuple[Callable[[Answer], Answer], str]] = [
    (lambda a: (503, {}, b"busy"), "answered 503"),
    (lambda a: (302, {"Location": "http://127.0.0.1:1/"}, b""), "answered 302"),
    (lambda a: (200, {}, b""), "expected JSON"),
    (lambda a: (200, {}, b"\xff\x00" * 50), "expected UTF-8"),
    (lambda a: (200, {}, b"[" * 5000), "levels of nesting"),
    (lambda a: (200, a[1], a[2] + b"\0"), "got more"),
    (lambda a: (200, a[1], a[2][:-4]), "bytes of binary data"),
    (lambda a: (200, a[1], a[2] + b" " * (1 << 20)), "expected at most"),
    (
        lambda a: (200, {"Inference-Header-Content-Length": "-1"}, a[2]),
        "expected a number of bytes",
    ),
    (lambda a: (200, {"Inference-Header-Content-Length": "9" * 11}, a[2]), "expected at most"),
    (lambda a: (200, {**a[1], "Content-Encoding": "gzip"}, a[2]), "expected plain bytes"),
    (changed(model_name="other"), "model_name: expected detector-big"),
    (changed(model_version="1.0.0"), "model_version: expected 1.1.0"),
    (changed(output_name="other"), "expected an output probs"),
    (changed(outputs={}), "expected a list"),
    (changed(output_datatype="BYTES"), "datatype: expected one of numbers"),
    (changed(output_datatype="FP64"), "80 bytes of binary data"),
    (changed(output_datatype="INT32"), "expected float32"),
    (changed(output_shape=[10, 1]), "expected float32 [1, 10]"),
    (changed(output_shape=HUGE), "whole numbers"),
    (changed(output_shape=[-1, -10]), "whole numbers"),
    (changed(output_shape="10"), "expected a list"),
    (changed(output_parameters={"binary_data_size": 1 << 60}), "bytes of binary data"),
    (changed(output_parameters={}, output_data=["a"] * 10), "10 numbers"),
    (changed(output_parameters={}, output_data=[[1.0], [1.0, 2.0]]), "lists of unlike lengths"),
    (changed(output_parameters={}, output_data=[1.0] * 9), "10 numbers"),
    (lambda a: (200, a[1], a[2][:-4] + np.float32("nan").tobytes()), "expected finite numbers"),
    (lambda a: (200, a[1], a[2][:-4] + np.float32("inf").tobytes()), "expected finite numbers"),
]


def test_whatever_the_server_answers_the_small_answer_is_the_answer(
    shelf: Shelf, peer: InferenceServer
) -> None:
    serve(shelf, replace(SAID, threshold="1"))
    allow(shelf, peer.url)
    x = np.full((1, 64), 0.5, np.float32)
    for twist, why in BROKEN:
        with opened(shelf) as model:
            assert model.predict(x).tier == "site", model.trouble
            peer.twist = twist
            answer = model.predict(x)
            assert (answer.tier, why in model.trouble) == ("device", True), (why, model.trouble)
            assert answer["probs"] is answer.device["probs"]
            peer.twist = lambda a: a
    said = counted(shelf)
    assert said["escalate_failed"].sum == len(BROKEN)


@pytest.mark.parametrize("drip", [False, True])
def test_a_server_that_takes_its_time_is_not_waited_for(
    shelf: Shelf, peer: InferenceServer, drip: bool
) -> None:
    serve(shelf, replace(SAID, threshold="1", timeout_ms=150))
    allow(shelf, peer.url)
    x = np.full((1, 64), 0.5, np.float32)
    with opened(shelf) as model:
        assert model.predict(x).tier == "site", model.trouble
        peer.drip, peer.slow_s = drip, 0.0 if drip else 3.0
        took = []
        for _ in range(6):
            begun = time.monotonic()
            assert model.predict(x).tier == "device"
            took.append(time.monotonic() - begun)
        assert max(took) < 1.0
        # after three in a row it is left alone, and costs nothing
        assert max(took[3:]) < 0.1
        assert "left alone for a while" in model.trouble


def test_a_server_that_comes_back_is_asked_again_and_its_absence_costs_no_budget(
    shelf: Shelf, peer: InferenceServer
) -> None:
    four = EscalateBudget("1", 4 * 256)
    serve(shelf, replace(SAID, threshold="1", budget=four))
    allow(shelf, peer.url)
    x = np.full((1, 64), 0.5, np.float32)
    with opened(shelf) as model:
        peer.twist = lambda a: (500, {}, b"")
        for _ in range(20):
            assert model.predict(x).tier == "device"
        assert len(peer.asked) == 3
        peer.twist = lambda a: a
        ends = time.monotonic() + SOON_S
        while model.predict(x).tier == "device":
            assert time.monotonic() < ends, model.trouble
            time.sleep(0.05)
    assert counted(shelf)["escalated"].sum == len(peer.asked) == 4


def test_nobody_at_the_address_is_no_exception(shelf: Shelf) -> None:
    serve(shelf, replace(SAID, threshold="1"))
    for url in ("http://127.0.0.1:1", "https://127.0.0.1:1", "http://no-such-host.invalid"):
        allow(shelf, url)
        with opened(shelf) as model:
            assert model.predict(np.zeros((1, 64), np.float32)).tier == "device"
            assert model.trouble


def test_only_the_server_with_the_pinned_key_sees_an_input(shelf: Shelf) -> None:
    serve(shelf, replace(SAID, threshold="1"))
    x = np.full((1, 64), 0.5, np.float32)
    server = InferenceServer(DIGITS / "1.1.0" / "model.onnx", "detector-big", "1.1.0")
    with server.running(tls=True):
        for pin in ("sha256:" + "ab" * 32, ""):  # another key; no pin, and nobody vouches for it
            allow(shelf, server.url, pin)
            with opened(shelf) as model:
                assert model.predict(x).tier == "device"
                words = "expected a server with the key" if pin else "certificate verify failed"
                assert words in model.trouble
        assert server.asked == []
        allow(shelf, server.url, server.pin)
        with opened(shelf) as model:
            assert model.predict(x).tier == "site", model.trouble
    assert len(server.asked) == 1


def test_a_share_that_is_spent_stops_a_fixed_threshold(shelf: Shelf, peer: InferenceServer) -> None:
    serve(shelf, replace(SAID, threshold="1", budget=EscalateBudget("0.01", 10**9)))
    allow(shelf, peer.url)
    x = np.full((1, 64), 0.5, np.float32)
    with opened(shelf) as model:
        tiers = [model.predict(x).tier for _ in range(200)]
        assert "the share of 0.01 is spent" in model.trouble
    assert tiers.count("site") == 11  # ten that were saved up for, and one of what came since
    assert counted(shelf)["escalate_failed"].sum == 189


def test_bytes_of_a_day_that_are_spent_stop_it(shelf: Shelf, peer: InferenceServer) -> None:
    serve(shelf, replace(SAID, threshold="1", budget=EscalateBudget("1", 1000)))
    allow(shelf, peer.url)
    x = np.full((1, 64), 0.5, np.float32)
    with opened(shelf) as model:
        tiers = [model.predict(x).tier for _ in range(6)]
        assert "the 1000 bytes of today are spent" in model.trouble
    assert tiers == ["site"] * 3 + ["device"] * 3  # of 256 bytes each
    assert counted(shelf)["escalated"].sum == 3


def test_bytes_are_sent_where_the_bigger_model_takes_them(shelf: Shelf, tmp_path: Path) -> None:
    serve(shelf, replace(SAID, threshold="1", encode="uint8"))
    model_file = write_taking_bytes(DIGITS / "1.1.0" / "model.onnx", tmp_path / "bytes.onnx")
    server = InferenceServer(model_file, "detector-big", "1.1.0")
    x = np.linspace(0, 1, 64, dtype=np.float32)[None]
    with server.running(), opened(shelf) as model:
        allow(shelf, server.url)
        assert model.predict(x).tier == "site", model.trouble
        assert server.inputs[0].dtype == np.uint8
        assert server.inputs[0].tolist() == np.rint(x * 255).tolist()
        assert model.predict(x * 2).tier == "device"
        assert "expected numbers from 0 to 1" in model.trouble


def test_one_confident_input_in_a_thousand_is_sent_and_nobody_waits(
    shelf: Shelf, peer: InferenceServer
) -> None:
    serve(shelf, replace(SAID, threshold="0"))
    allow(shelf, peer.url)
    peer.slow_s = 0.3
    x = np.full((1, 64), 0.5, np.float32)
    slowest, ends = 0.0, time.monotonic() + SOON_S
    with opened(shelf) as model:
        while not peer.asked:
            assert time.monotonic() < ends
            begun = time.monotonic()
            assert model.predict(x).tier == "device"
            slowest = max(slowest, time.monotonic() - begun)
        time.sleep(0.5)
    assert slowest < 0.3
    said = counted(shelf)
    assert said["overruled_sure"].count == len(peer.asked) < said["escalated"].count
    assert said["escalated"].sum == 0


def test_several_inputs_in_one_call_are_refused(shelf: Shelf, peer: InferenceServer) -> None:
    serve(shelf)
    allow(shelf, peer.url)
    with opened(shelf) as model, pytest.raises(ValueError, match="expected one input a call"):
        model.predict(np.zeros((2, 64), np.float32))


def test_a_switch_brings_the_new_versions_rules(shelf: Shelf, peer: InferenceServer) -> None:
    serve(shelf, replace(SAID, threshold="1"))
    allow(shelf, peer.url)
    x = np.full((1, 64), 0.5, np.float32)
    with opened(shelf) as model:
        assert model.predict(x).tier == "site", model.trouble
        serve(shelf, None, number=1)
        assert model.small.wait_for("1.1.0", SOON_S)
        assert model.predict(x).tier == "device"
        assert "has no escalate.json" in model.trouble


def test_many_threads_ask_at_once_and_all_get_an_answer(
    shelf: Shelf, peer: InferenceServer, images: tuple[np.ndarray, np.ndarray]
) -> None:
    serve(shelf)
    allow(shelf, peer.url)
    wrong: list[object] = []
    with opened(shelf) as model:

        def work(part: int) -> None:
            try:
                for x in images[0][part:240:8]:
                    model.predict(x)
            except BaseException as e:
                wrong.append(e)

        threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []
    assert counted(shelf)["escalated"].count == 240


def test_a_forked_child_asks_over_connections_of_its_own(
    shelf: Shelf, peer: InferenceServer
) -> None:
    serve(shelf, replace(SAID, threshold="1"))
    allow(shelf, peer.url)
    x = np.full((1, 64), 0.5, np.float32)
    with opened(shelf) as model:
        assert model.predict(x).tier == "site", model.trouble
        with model._lock:  # another thread may hold it
            child = os.fork()
            if child == 0:
                signal.signal(signal.SIGALRM, signal.SIG_DFL)
                signal.alarm(30)
                os._exit(0 if model.predict(x).tier == "site" else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert model.predict(x).tier == "site", model.trouble
    assert len(peer.asked) == 3
