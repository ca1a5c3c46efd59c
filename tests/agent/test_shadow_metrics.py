"""Numbers of a version in shadow count for it alone; no application's own are called like them."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pilotwave_agent.apps.mailbox import Mailbox
from pilotwave_agent.check_in.metrics import Telemetry
from pilotwave_agent.host.disk import Disk
from pilotwave_agent.live.generation import Version
from pilotwave_agent.live.recorder import Recorder
from pilotwave_protocol.shadow import SHADOW_FILE, SHADOW_METRICS, SHADOW_SCHEMA
from tests.agent.test_mailbox import send
from tests.peers.users import EYE, ROOT

CANDIDATE, SERVING = "1.1.0", "1.0.0"


@pytest.fixture
def live(tmp_path: Path) -> Path:
    """The folder for applications, with 1.1.0 in shadow."""
    (tmp_path / "live" / "detector").mkdir(parents=True)
    told(tmp_path / "live").write_text(json.dumps({"schema": SHADOW_SCHEMA, "version": CANDIDATE}))
    return tmp_path / "live"


def told(live: Path) -> Path:
    return live / "detector" / SHADOW_FILE


def leave(live: Path, version: str, *metrics: str) -> None:
    """Leave a window, as an application does."""
    recorder = Recorder(live / "detector", "app")
    for metric in metrics:
        recorder.number(Version("detector", version, "", "", version, Path()), metric, 1.0)
    recorder.flush()


def collected(live: Path) -> list[tuple[str, str]]:
    telemetry = Telemetry(Disk(), live, live.parent / "telemetry" / "spool.json")
    telemetry.collect(time.time())
    return sorted((r.version, r.metric) for r in telemetry.pending())


def test_windows_of_the_version_in_shadow_are_sent(live: Path) -> None:
    leave(live, CANDIDATE, *SHADOW_METRICS)
    assert collected(live) == [(CANDIDATE, metric) for metric in sorted(SHADOW_METRICS)]


def test_of_any_other_version_they_are_passed_over(live: Path) -> None:
    leave(live, SERVING, "shadow_error", "latency_ms")
    assert collected(live) == [(SERVING, "latency_ms")]


def test_names_that_are_none_of_a_shadows_are_passed_over(live: Path) -> None:
    leave(live, CANDIDATE, "shadow_", "shadow_mine", "shadow_error")
    assert collected(live) == [(CANDIDATE, "shadow_error")]


@pytest.mark.parametrize("left", [None, "{", "[]", '{"schema": "pilotwave/shadow/1"}'])
def test_without_a_shadow_none_count(live: Path, left: str | None) -> None:
    if left is None:
        told(live).unlink()
    else:
        told(live).write_text(left)
    leave(live, CANDIDATE, "shadow_error", "score")
    assert collected(live) == [(CANDIDATE, "score")]


@pytest.mark.skipif(not ROOT, reason="only root can become somebody else")
def test_a_file_that_an_application_made_says_nothing(live: Path) -> None:
    os.chown(told(live), EYE, -1)
    leave(live, CANDIDATE, "shadow_error", "score")
    assert collected(live) == [(CANDIDATE, "score")]


class TestSocket:
    """The socket takes the same, and the log says what it does not take."""

    @pytest.fixture
    def mailbox(self, live: Path) -> Iterator[Mailbox]:
        made = Mailbox(live, "")
        yield made
        made.close()

    def say(self, live: Path, version: str, **numbers: object) -> None:
        said = {"schema": "pilotwave/sample/1", "model": "detector"}
        send(live, {**said, "version": version, "numbers": numbers})

    def test_it_takes_figures_of_the_version_in_shadow(self, live: Path, mailbox: Mailbox) -> None:
        self.say(live, CANDIDATE, shadow_disagree=[0, 1], shadow_dropped=0)
        mailbox.empty()
        mailbox.flush()
        assert collected(live) == [(CANDIDATE, "shadow_disagree"), (CANDIDATE, "shadow_dropped")]

    def test_it_refuses_reserved_names_with_a_sentence_and_takes_the_rest(
        self, live: Path, mailbox: Mailbox, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for _ in range(3):
            self.say(live, SERVING, shadow_mine=1, shadow_error=[0], score=0.9)
            mailbox.empty()
        mailbox.flush()
        assert collected(live) == [(SERVING, "score")]
        said = capsys.readouterr().err.splitlines()
        assert len(said) == 2, said
        assert "shadow_mine: names that begin with shadow_ are reserved" in said[0]
        assert "shadow_error of 1.0.0: that version is not in shadow here" in said[1]

    def test_a_flood_of_names_fills_no_log(
        self, live: Path, mailbox: Mailbox, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for n in range(200):
            self.say(live, SERVING, **{f"shadow_{n}": 1})
            mailbox.empty()
        assert len(capsys.readouterr().err.splitlines()) == 64
