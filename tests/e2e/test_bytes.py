"""What API and command line say was sent is what a gateway between server and device counted."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.fleet_of_one import FleetOfOne, fleet_of_one, wait_until
from tests.peers.counting import CountingProxy
from tests.peers.shelf import model_bytes

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(300), pytest.mark.slow]
SETTINGS = "[limits]\nmax_rate_kbps = 8000\n"


class Story:
    """One device behind a gateway that counts."""

    def __init__(self, root: Path, stack: ExitStack) -> None:
        def link(url: str) -> str:
            self.gateway = stack.enter_context(CountingProxy(url).running())
            return self.gateway.url

        self.fleet: FleetOfOne = stack.enter_context(
            fleet_of_one(root, settings=SETTINGS, link=link)
        )
        self.root = root

    def publish(self, version: str, number: int) -> None:
        folder = self.root / version
        folder.mkdir()
        (folder / "model.onnx").write_bytes(model_bytes(number, hidden=40_000))
        self.fleet.publish("detector", version, folder)

    def sums(self, *words: str) -> Any:
        return self.fleet.stage.ask(*words)

    def settled(self) -> dict[str, int]:
        """The device's sums, once all that the gateway counted is written down."""
        found: dict[str, int] = {}
        wanted = self.gateway.came

        def written() -> bool:
            nonlocal found
            rows = self.sums("bytes", "--by", "device")
            found = rows[0] if rows else {}
            return bool(found) and found["sent"] >= wanted["blobs"] + wanted["deltas"]

        wait_until(written, lambda: f"{dict(wanted)}; the server says {found}")
        return found


@pytest.fixture
def story(tmp_path: Path) -> Iterator[Story]:
    with ExitStack() as stack:
        yield Story(tmp_path, stack)


def test_the_gateways_numbers_are_the_servers(story: Story) -> None:
    fleet, stage, came = story.fleet, story.fleet.stage, story.gateway.came
    stage.pilotwave("models", "create", "detector", "--publisher", "keys/publisher.pem")
    story.publish("1.0.0", 1)
    fleet.assign("detector", "1.0.0")
    fleet.until("detector", "1.0.0", "healthy")
    first = story.settled()
    assert first["device"] == "board"
    assert (first["sent_full"], first["sent_delta"]) == (came["blobs"], came["deltas"])

    story.publish("1.1.0", 2)
    before = came["blobs"] + came["deltas"]
    wish = ("--group", "boards", "--policy", "everyone-now", "--start")
    stage.pilotwave("rollouts", "create", "detector", "1.1.0", *wish)
    fleet.until("detector", "1.1.0", "healthy")
    second = story.settled()
    total = came["blobs"] + came["deltas"]
    assert (second["sent_full"], second["sent_delta"]) == (came["blobs"], came["deltas"])
    assert second["saved"] > 0  # a first install is compressed, the second a delta
    rollout = story.sums("rollouts", "show", "r1")
    assert rollout["bytes"]["sent"] == total - before
    version = story.sums("versions", "show", "detector", "1.0.0")
    assert version["bytes"]["sent"] == before
    device = story.sums("devices", "show", "board")
    assert {row["version"]: row["sent"] for row in device["bytes"]} == {
        "1.0.0": before,
        "1.1.0": total - before,
    }
    assert story.sums("bytes", "--by", "site")[0]["site"] == "here"
    assert "bytes sent" in stage.pilotwave("rollouts", "show", "r1")

    # a server that is killed keeps what it wrote down
    server = stage.processes[0]
    server.kill()
    server.wait(10)
    (story.root / "server.log").write_text("")
    stage.start_server()
    assert story.settled() == second


def test_a_download_that_was_cut_counts_as_far_as_it_went(story: Story) -> None:
    fleet, stage, gateway = story.fleet, story.fleet.stage, story.gateway
    stage.pilotwave("models", "create", "detector", "--publisher", "keys/publisher.pem")
    folder = story.root / "noise"
    folder.mkdir()
    (folder / "model.onnx").write_bytes(model_bytes(1))
    noise = random.Random(1).randbytes(3_000_000)
    (folder / "noise.bin").write_bytes(noise)
    fleet.publish("detector", "1.0.0", folder)
    gateway.cut = 1_000_000
    fleet.assign("detector", "1.0.0")
    fleet.until("detector", "1.0.0", "healthy")
    assert gateway.cuts == 1
    time.sleep(0.1)
    found = story.settled()
    came = gateway.came["blobs"] + gateway.came["deltas"]
    # what the systems had in hand when the line broke went out, or was about to
    assert came <= found["sent"] <= came + 700_000
