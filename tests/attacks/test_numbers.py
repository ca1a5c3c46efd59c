"""No unsigned word binds a device: whatever it was told, an honest server has it back."""

from __future__ import annotations

import itertools
import json
import secrets
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pilotwave_agent.core import records
from pilotwave_agent.core.journal import Journal
from pilotwave_agent.core.records import noticed
from pilotwave_agent.host.disk import Disk
from pilotwave_agent.identity import load_key
from pilotwave_protocol import dsse
from pilotwave_protocol.fields import MAX_INT
from pilotwave_protocol.messages.check_in import CHECK_IN_TYPE, CheckIn, DeviceEvent
from tests.attacks.board import Board
from tests.peers.liar import Liar, Lie
from tests.server.device_api.peer import FLEET, SimulatedDevice
from tests.server.fleet_fixtures import Fleet, fleet, published

__all__ = ["fleet", "published"]
pytestmark = pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
VISITS = 4  # within so many, an honest server and a device agree again
_NAMES = (f"board-{n}" for n in itertools.count())
SOME = settings(max_examples=20, suppress_health_check=list(HealthCheck))

NUMBERS = st.one_of(
    st.integers(0, 300),
    st.sampled_from([2**24, 2**40, 2**52 - 1, 2**52, MAX_INT - 1, MAX_INT, MAX_INT + 1, 10**30]),
    st.integers(-5, 10**31),
)
WORDS = st.one_of(
    st.sampled_from(["stale_seq", "bad_check_in", "pending", "revoked", "wrong_fleet", "unknown"]),
    st.text(max_size=20),
)
VALUES = st.one_of(NUMBERS, WORDS, st.none(), st.booleans())
PROBLEMS = st.fixed_dictionaries(
    {"code": WORDS, "last_seq": VALUES},
    optional={
        "challenge": st.one_of(VALUES, st.just("ab12.board.1.99.x")),
        "fleet": st.one_of(VALUES, st.just("evil")),
        "acked_event": VALUES,
        "detail": st.text(max_size=40),
    },
)
REPLIES = st.fixed_dictionaries(
    {
        "token": st.one_of(st.text(max_size=30), st.just("token")),
        "token_expires_in_s": st.integers(1, 86_400),
        "poll_interval_s": st.integers(1, 604_800),
        "check_in_interval_s": st.integers(1, 604_800),
        "acked_event": NUMBERS,
        "acked_metric": NUMBERS,
        "tuf": st.fixed_dictionaries({"root": NUMBERS, "timestamp": NUMBERS, "snapshot": NUMBERS}),
        "now": st.sampled_from(["2026-01-31T09:30:00Z", "0001-01-01T00:00:00Z", "never"]),
    },
    optional={
        "accepts": st.one_of(VALUES, st.just(["numbering"])),
        "push": st.fixed_dictionaries(
            {"poll_interval_s": NUMBERS, "ping_s": NUMBERS, "spread_s": NUMBERS}
        ),
    },
)
HEADERS = st.fixed_dictionaries(
    {},
    optional={
        "Retry-After": st.one_of(
            NUMBERS.map(str), st.just("9" * 5000), st.just("\xb2"), st.just("soon")
        ),
        "ETag": st.one_of(
            st.text(st.characters(min_codepoint=1, max_codepoint=255, exclude_characters="\r\n")),
            st.just('"abc"'),
        ),
        "pilotwave-tuf": st.one_of(st.just("1.2"), st.builds("{}.{}".format, NUMBERS, NUMBERS)),
    },
)
LIES = st.builds(
    Lie,
    status=st.sampled_from([200, 201, 204, 304, 400, 401, 403, 404, 409, 413, 422, 429, 500, 503]),
    body=st.one_of(
        st.one_of(PROBLEMS, REPLIES).map(lambda plain: json.dumps(plain).encode()),
        st.binary(max_size=40),
    ),
    headers=HEADERS,
)
STALE = PROBLEMS.map(
    lambda plain: Lie(409, json.dumps({**plain, "code": "stale_seq"}).encode(), {})
)
ACKS = REPLIES.map(lambda plain: Lie(200, json.dumps({**plain, "token": "t"}).encode(), {}))
# what comes about: a lie, an answer that is lost, a start, an event, an honest visit
DEEDS = st.lists(
    st.one_of(LIES, STALE, ACKS, st.sampled_from(["lost", "restart", "event", "visit", "forget"])),
    min_size=1,
    max_size=6,
)


class Site:
    """A server, a liar in front of it, and boards."""

    def __init__(self, fleet: Fleet, folder: Path) -> None:
        self.fleet, self.folder = fleet, folder
        self.liar = Liar(str(fleet.client.base_url))
        self.boards: list[Board] = []
        self.root = folder / "root.json"
        answer = fleet.client.get("/tuf/metadata/1.root.json")
        self.root.write_bytes(answer.content)

    def board(self) -> Board:
        """Return a device that is enrolled through the liar, who hands everything on."""
        self.close()
        name = next(_NAMES)
        board = Board(self.liar.url, self.folder / name, self.fleet.code(), self.root)
        self.boards.append(board)
        return board

    def close(self) -> None:
        """End the boards so far."""
        while self.boards:
            self.boards.pop().talk.channel.close()

    def stored(self, board: Board) -> Counter[str]:
        """Return what the server has of the board's events, by their text."""
        path = f"/api/v1/devices/{board.config.device}/events?limit=100"
        items = self.fleet.operator.get(path).json()["items"]
        return Counter(item["detail"] for item in items)

    def converges(self, board: Board) -> None:
        """See that report and poll get through, and that a new event arrives once."""
        self.liar.lies.clear()
        self.liar.lost = 0
        board.restart()
        board.happens("afterwards")
        for _ in range(VISITS):
            board.visit()
        said = self.liar.said
        self.liar.said = []
        board.visit()
        assert self.liar.said[0] == ("/device/v1/check-in", 200), (self.liar.said, said)
        assert [status for path, status in self.liar.said[1:]] in ([200], [304]), self.liar.said
        stored = self.stored(board)
        assert stored["afterwards"] == 1
        assert max(stored.values()) == 1, stored


@pytest.fixture
def site(fleet: Fleet, tmp_path: Path) -> Iterator[Site]:
    made = Site(fleet, tmp_path)
    yield made
    made.close()
    made.liar.close()


@SOME
@given(deeds=DEEDS)
def test_a_device_comes_back_whatever_it_was_told(site: Site, deeds: list[Any]) -> None:
    board = site.board()
    board.happens("before")
    for number, deed in enumerate(deeds):
        match deed:
            case Lie():
                site.liar.lies.append(deed)
                board.visit()
            case "lost":
                site.liar.lost = 1
                board.visit()
            case "restart":
                board.restart()
            case "event":
                board.happens(f"event {number}")
            case "forget":
                board.layout.seq.unlink(missing_ok=True)
                board.restart()
            case _:
                board.visit()
    site.converges(board)
    if not any(isinstance(deed, Lie) and deed.status == 200 for deed in deeds):
        wanted = {f"event {n}" for n, deed in enumerate(deeds) if deed == "event"} | {"before"}
        assert wanted <= set(site.stored(board))


POISON = st.sampled_from([2**52, MAX_INT - 1, MAX_INT, MAX_INT + 1, 10**30])


@SOME
@given(number=POISON, kind=st.sampled_from(["seq", "journal", "telemetry", "all"]))
def test_a_device_that_older_agents_let_be_poisoned_comes_back(
    site: Site, number: int, kind: str
) -> None:
    """As 19f785e wrote them after a forged `last_seq`, `acked_event` or `acked_metric`."""
    board = site.board()
    board.visit()
    if kind in ("seq", "all"):
        board.layout.seq.write_text(json.dumps({"reserved": number}))
    if kind in ("journal", "all"):
        journal = Journal(Disk(), board.layout.journal)
        journal.append(noticed("tried", at=1.0, detail="poisoned"))
        journal.append(records.acked(number, at=1.0))
        journal.append(noticed("tried", at=2.0, detail="since"))
    if kind in ("telemetry", "all"):
        plain = {"last": number, "reports": [], "ends": {}, "taken": [], "dropped": 0}
        board.layout.telemetry.parent.mkdir(parents=True, exist_ok=True)
        board.layout.telemetry.write_text(json.dumps(plain))
    site.converges(board)
    assert board.state().next_event < 100 or kind not in ("journal", "all")


NAME = st.sampled_from([None, "ab" * 16, "cd" * 16])
REPORTS = st.lists(
    st.fixed_dictionaries(
        {
            "seq": st.one_of(st.integers(1, 50), st.sampled_from([2**52, MAX_INT - 1, MAX_INT])),
            "numbering": st.one_of(NAME, st.just("its own")),
            "boot": NAME,
            "event": st.sampled_from([None, 1, 2, 3, MAX_INT - 1, MAX_INT]),
            "answers": st.booleans(),
        }
    ),
    min_size=1,
    max_size=5,
)


@SOME
@given(reports=REPORTS)
def test_a_server_comes_back_whatever_a_device_signed(
    site: Site, reports: list[dict[str, Any]]
) -> None:
    """The mirror: numbers that a poisoned or malicious agent signed keep no honest one out."""
    board = site.board()
    board.happens("before")
    board.visit()
    device = SimulatedDevice(board.config.device, site.fleet.client, key=load_key(board.layout.key))
    for each in reports:
        challenge = None
        own = board.talk.seq.name if each["numbering"] == "its own" else each["numbering"]
        for _ in range(2):
            event = each["event"] and DeviceEvent(each["event"], site.fleet.context.clock(), "x")
            report = replace(
                report_of(device.name),
                seq=each["seq"],
                numbering=own,
                boot=each["boot"],
                challenge=challenge,
                events=(replace(event, detail=secrets.token_hex(4)),) if event else (),
            )
            raw = dsse.sign(CHECK_IN_TYPE, report.to_bytes(), device.key)
            answer = device.post("/device/v1/check-in", raw)
            assert answer.status_code in (200, 409), answer.text
            if answer.status_code == 200 or not each["answers"]:
                break
            challenge = answer.json()["challenge"]
    site.converges(board)


def report_of(device: str) -> CheckIn:
    return CheckIn(FLEET, device, 1, "0.1.0", 0, {"root": 1, "timestamp": 1, "snapshot": 1})
