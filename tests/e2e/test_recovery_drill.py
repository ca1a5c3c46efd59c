"""The drill of docs/keys.md: each key, and the whole server, is stolen, used to its worst, rotated.
Every device comes back without a visit. A real server, the command line, real agents.

One fleet lives through all of it, one theft after the other, as each leaves its mark on devices.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from pilotwave_protocol.fields import MAX_INT
from tests.e2e.test_restored_server import NAMES, Story, until
from tests.e2e.thief import FAR, HUGE, Forged, Thief, together, version_of
from tests.peers.relay import Relay, honest

pytestmark = [pytest.mark.timeout(1500), pytest.mark.slow]


class Drill(Story):
    """The story's fleet, its devices behind a relay."""

    relay: Relay
    version = 0

    def __init__(self, root: Path) -> None:
        self.took: dict[str, float] = {}
        super().__init__(root)

    @property
    def url_of_devices(self) -> str:
        if not hasattr(self, "relay"):
            self.relay = Relay(self.stage.url)
        return self.relay.url

    def thief(self) -> Thief:
        token = (self.stage.root / "admin.token").read_text().strip()
        return Thief(self.stage.url, token, self.stage.root / "data" / "keys")

    def does(self, forged: Forged, seen: Callable[[dict[str, object]], bool]) -> None:
        """Have the thief answer until every device has followed, and be gone."""
        self.relay.forged = forged
        until(
            lambda: "all" if all(seen(d) for d in self.devices()) else repr(self.devices()),
            "what the thief wanted",
            at="all",
        )
        self.relay.forged = honest

    def orders(self) -> str:
        """Publish and assign a version that nobody has, and return it."""
        self.version += 1
        name = f"2.{self.version}.0"
        self.publish(name, "1.1.0" if self.version % 2 else "1.0.0")
        self.assign(name)
        return name

    def goes_on(self) -> float:
        """Order a new version; return after how many seconds the last device ran it."""
        return self.all_run(self.orders())

    def reasons(self) -> str:
        return repr([(device["refusal"] or {}).get("reason") for device in self.devices()])

    def came_back(self, theft: str, began: float) -> None:
        """Note after how long the last device was back."""
        self.took[theft] = time.monotonic() - began
        print(f"{theft}: the last of {len(NAMES)} devices was back after {self.took[theft]:.1f} s")

    def rotate(self, *words: str) -> None:
        self.stage.pilotwave("keys", "rotate", *words, "--dir", "keys")


@pytest.fixture
def drill(tmp_path: Path) -> Iterator[Drill]:
    made = Drill(tmp_path)
    try:
        made.publish("1.0.0", "1.0.0")
        made.assign("1.0.0")
        made.all_run("1.0.0")
        made.goes_on()
        yield made
    finally:
        made.relay.close()
        made.stage.close()


def seq_is_used_up(device: dict[str, object]) -> bool:
    return device["directive_seq"] == MAX_INT


def timestamp_is(version: int) -> Callable[[dict[str, object]], bool]:
    def seen(device: dict[str, object]) -> bool:
        tuf = device["tuf"]
        assert isinstance(tuf, dict)
        return bool(tuf["timestamp"] == min(version, MAX_INT))

    return seen


def director(drill: Drill) -> None:
    """The director key: the highest seq and attempt, for an old version, good until 9999."""
    thief = drill.thief()
    drill.does(thief.orders("one", "m", "1.0.0"), seq_is_used_up)
    began = time.monotonic()
    drill.rotate("director")
    drill.goes_on()
    drill.came_back("director", began)
    # the old key is good for nothing: its orders are refused now
    drill.relay.forged = thief.orders("one", "m", "1.0.0")
    until(drill.reasons, "refused", at=repr(["wrong_key"] * len(NAMES)))
    drill.relay.forged = honest
    drill.goes_on()
    thief.close()


def online(drill: Drill) -> None:
    """The online key: timestamp and snapshot 2^60, good until 9999, signed the day before."""
    thief = drill.thief()
    worst = thief.metadata(version=HUGE, signed_at=FAR - timedelta(days=1), expires=FAR)
    drill.does(worst, timestamp_is(HUGE))
    began = time.monotonic()
    drill.rotate("online")
    drill.goes_on()
    drill.came_back("online", began)
    thief.close()


def clock(drill: Drill) -> None:
    """No thief: the server's clock ran 100 days ahead, and is put right. No key is rotated."""
    thief = drill.thief()
    ahead = datetime.now(timezone.utc) + timedelta(days=100)
    wrong = version_of(thief.document("timestamp")) + 1
    drill.does(
        thief.metadata(version=wrong, signed_at=ahead, expires=ahead + timedelta(days=3)),
        timestamp_is(wrong),
    )
    began = time.monotonic()
    drill.goes_on()
    drill.came_back("clock", began)
    thief.close()


def one_of_three(drill: Drill) -> None:
    """One root key and one targets key of three: no device follows, both roles are rotated."""
    thief = drill.thief()
    began = time.monotonic()
    drill.relay.forged = thief.root(drill.stage.root / "keys")
    ordered = drill.orders()
    until(drill.reasons, "refused", at=repr(["metadata_unsigned"] * len(NAMES)))
    drill.relay.forged = honest
    drill.rotate("root", "--plain")
    drill.rotate("targets", "--plain")
    drill.all_run(ordered)
    drill.goes_on()
    drill.came_back("root and targets, one of three", began)
    thief.close()


def whole_server(drill: Drill) -> None:
    """The whole server: all of the above at once; a clean one gets last night's backup."""
    drill.stop()
    shutil.copytree(drill.stage.root / "data", drill.stage.root / "backup")
    drill.start()
    drill.goes_on()
    thief = drill.thief()
    drill.does(
        together(
            thief.orders("one", "m", "1.0.0"),
            thief.metadata(version=HUGE, signed_at=FAR - timedelta(days=1), expires=FAR),
        ),
        lambda d: seq_is_used_up(d) and timestamp_is(HUGE)(d),
    )
    thief.close()
    drill.stop()
    began = time.monotonic()
    shutil.rmtree(drill.stage.root / "data")
    shutil.copytree(drill.stage.root / "backup", drill.stage.root / "data")
    (drill.stage.root / "data" / "keys" / "device-tokens.json").unlink()
    drill.stage.run("pilotwave-server", "restore", "--data", "data")
    drill.start()
    drill.rotate("online", "--fresh-key")
    drill.rotate("director", "--fresh-key")
    drill.goes_on()
    drill.came_back("the whole server", began)
    assert drill.status()["ahead"] is None


THEFTS = (director, online, clock, one_of_three, whole_server)


def test_every_device_comes_back_after_each_theft(drill: Drill) -> None:
    for theft in THEFTS:
        theft(drill)
    assert len(drill.took) == len(THEFTS)
    assert all(seconds < 120 for seconds in drill.took.values()), drill.took
