"""Who uses several hosts while they are killed: devices, listeners, a person, publishers.

Each keeps what was acknowledged, so that it can be looked for afterwards. Whoever gets no answer,
or an error, asks again after a second, once.
"""

from __future__ import annotations

import json
import secrets
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timezone

import httpx
from _bench import DIGITS, MODEL
from _hosts import NAMES, Hosts
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

from pilotwave_protocol.digest import sha256_hex
from pilotwave_protocol.messages.check_in import DeviceEvent
from tests.server.device_api.peer import SimulatedDevice, read_directive

KILL_EVERY_S, DOWN_S = 20.0, 5.0
POLL_S, CHECK_IN_EVERY, PUBLISH_EVERY_S, PAGE_EVERY_S = 0.5, 4, 8, 1.0
RETRY_S = 1.0
PAGES = ("/", "/devices", "/rollouts", "/models", f"/models/{MODEL}")
BAD = "bad"
"""What ends the name of a version that fails its self-test."""
OVER = {"completed", "rolled_back", "aborted"}
DECIDED = {*OVER, "paused"}


class Asker(threading.Thread):
    """Asks until `stop` is set; counts what was answered and what failed."""

    def __init__(self, stage: Hosts, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self.stage, self.stopping, self.counts = stage, stop, Counter[str]()
        self.http = httpx.Client(base_url=stage.url, timeout=10)

    def twice(self, what: str, ask: Callable[[], int]) -> bool:
        """Ask, and once more after a second; whether it was answered."""
        for attempt in range(2):
            status: int | str
            try:
                status = ask()
            except httpx.HTTPError as error:
                status = type(error).__name__
            if status in (200, 304):
                self.counts[f"{what}_answered"] += 1
                return True
            self.counts[f"{what}_failed" if attempt else f"{what}_failed_first"] += 1
            self.counts[f"{what}: {status}"] += 1
            if not attempt:
                self.refused(status)
                time.sleep(RETRY_S)
        return False

    def refused(self, status: int | str) -> None:
        """What to do between the two."""


class Poller(Asker):
    """One device: polls, and checks in with an event each time."""

    def __init__(self, stage: Hosts, name: str, code: str, stop: threading.Event) -> None:
        super().__init__(stage, stop)
        self.device = SimulatedDevice(name, self.http)
        self.acknowledged: set[int] = set()
        self.waiting: list[DeviceEvent] = []
        answer = self.device.enrol(code)
        assert answer.status_code == 201, answer.text

    def run(self) -> None:
        turn = 0
        while not self.stopping.wait(POLL_S):
            if turn % CHECK_IN_EVERY == 0:
                self.twice("check_in", self.check_in)
            self.twice("poll", self.poll)
            turn += 1

    def refused(self, status: int | str) -> None:
        if status == 401:
            with suppress(httpx.HTTPError):
                self.check_in()

    def poll(self) -> int:
        return self.device.poll().status_code

    def check_in(self) -> int:
        last = max(self.acknowledged | {e.id for e in self.waiting}, default=0)
        if not self.waiting:
            now = datetime.now(timezone.utc).replace(microsecond=0)
            self.waiting = [DeviceEvent(last + 1, now, "note", detail="bench")]
        answer = self.device.check_in(events=tuple(self.waiting))
        if answer.status_code == 200:
            self.acknowledged |= {event.id for event in self.waiting}
            self.waiting = []
        return answer.status_code


class Listener(Poller):
    """One device with a push channel: it polls when it is called, and when its channel is back.

    As a real one it polls once more a second after a call for nothing: who answered may have been
    behind the one that called.
    """

    def __init__(self, stage: Hosts, name: str, code: str, stop: threading.Event) -> None:
        super().__init__(stage, name, code, stop)
        self.told: dict[str, float] = {}
        self.calls = self.channels = 0

    def run(self) -> None:
        self.twice("check_in", self.check_in)
        while not self.stopping.is_set():
            with suppress(OSError, WebSocketException):
                self._listen()
            if not self.stopping.wait(RETRY_S):
                self.twice("check_in", self.check_in)

    def _listen(self) -> None:
        url = f"ws{self.stage.url.removeprefix('http')}/device/v1/push"
        headers = {"Authorization": f"Bearer {self.device.token}"}
        with connect(url, additional_headers=headers, compression=None) as channel:
            self.channels += 1
            self._look()
            while not self.stopping.is_set():
                with suppress(TimeoutError):
                    channel.recv(timeout=1)
                    self.calls += 1
                    self._look()

    def _look(self) -> None:
        before = len(self.told)
        self.twice("poll", self._read)
        if len(self.told) == before:
            time.sleep(1)
            self.twice("poll", self._read)

    def _read(self) -> int:
        self.device.etag = ""
        answer = self.device.poll()
        if answer.status_code == 200:
            for entry in read_directive(answer).entries:
                self.told.setdefault(entry.version, time.monotonic())
        return answer.status_code


class Person(Asker):
    """Somebody who is signed in and looks at one page after the other."""

    def __init__(self, stage: Hosts, link: str, stop: threading.Event) -> None:
        super().__init__(stage, stop)
        self.http.headers["Sec-Fetch-Site"] = "same-origin"
        word = "correct horse battery"
        answer = self.http.post(link, data={"password": word, "again": word})
        assert answer.status_code == 303, answer.text

    def run(self) -> None:
        while not self.stopping.wait(PAGE_EVERY_S):
            page = PAGES[self.counts["page_answered"] % len(PAGES)]
            self.twice("page", lambda page=page: self.http.get(page).status_code)  # type: ignore[misc]


class Publisher(Asker):
    """Publishes versions with another file each, and assigns each to the listeners."""

    def __init__(self, stage: Hosts, stop: threading.Event) -> None:
        super().__init__(stage, stop)
        self.acknowledged: dict[str, str] = {}
        self.assigned: dict[str, float] = {}
        self.refused_with: list[str] = []
        self.number = 0
        self._turn = threading.Lock()

    def publish(self, ending: str = "") -> str:
        """Publish the next version and return its name; "" where it was refused."""
        with self._turn:
            self.number += 1
            version = f"1.0.{self.number}" + (f"-{ending}" if ending else "")
            folder = self.stage.root / "versions" / version
            shutil.copytree(DIGITS / "1.0.0", folder)
            data = secrets.token_bytes(200_000)
            (folder / "table.bin").write_bytes(data)
            words = ["publish", MODEL, version, "--variant", f"onnx-fp32={folder}", "--no-try"]
            words += ["--key", "keys/publisher.pem", "--yes"]
            if not self._done(words):
                return ""
            self.acknowledged[version] = sha256_hex(data)
            return version

    def _done(self, words: list[str]) -> bool:
        done = self.stage.end_of("pilotwave", words)
        if done.returncode != 0:
            said = (done.stderr or done.stdout).strip().splitlines()[-1][:160]
            self.refused_with.append(f"{words[0]}: {said}")
        return done.returncode == 0

    def run(self) -> None:
        while not self.stopping.wait(PUBLISH_EVERY_S):
            version = self.publish()
            if version and self._done(["assign", "--yes", MODEL, version, "--group", "listeners"]):
                self.assigned[version] = time.monotonic()


class Roller(Asker):
    """Rolls out one version after the other; every third fails on its devices."""

    def __init__(self, stage: Hosts, publisher: Publisher, stop: threading.Event) -> None:
        super().__init__(stage, stop)
        self.publisher = publisher
        self.states: list[tuple[str, str, str]] = []
        self.refused_with: list[str] = []
        token = (stage.root / "admin.token").read_text().strip()
        self.http.headers["Authorization"] = f"Bearer {token}"

    def run(self) -> None:
        while not self.stopping.is_set():
            ending = BAD if len(self.states) % 3 == 1 else ""
            version = self.publisher.publish(ending)
            if version:
                self._roll_out(version)

    def _roll_out(self, version: str) -> None:
        words = ["rollouts", "create", MODEL, version, "--group", "sims", "--json", "--start"]
        done = self.stage.end_of("pilotwave", [*words, "--policy-file", "policy.yaml"])
        if done.returncode != 0:
            self.refused_with.append(done.stderr.strip()[-160:])
            return
        shown = json.loads(done.stdout)
        path = f"/api/v1/rollouts/{shown['id']}"
        until = time.monotonic() + 180
        while shown["state"] not in DECIDED and time.monotonic() < until:
            time.sleep(1)
            with suppress(httpx.HTTPError):
                answer = self.http.get(path)
                shown = answer.json() if answer.status_code == 200 else shown
        self.states.append((version, str(shown["state"]), str(shown.get("reason"))))
        if shown["state"] not in OVER:
            self.stage.end_of("pilotwave", ["rollouts", "abort", "--yes", str(shown["id"])])


class Killer(threading.Thread):
    """Kills one host after the other, each 20 s, and starts it again 5 s later. One is down at a
    time: where a host takes longer to start, the next one is killed later."""

    def __init__(self, stage: Hosts, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self.stage, self.stopping = stage, stop
        self.kills = 0
        self.ready: list[tuple[float, float]] = []

    def run(self) -> None:
        due = time.monotonic() + KILL_EVERY_S
        while not self.stopping.wait(max(due - time.monotonic(), 0)):
            due = time.monotonic() + KILL_EVERY_S
            name = NAMES[self.kills % len(NAMES)]
            self.stage.kill_host(name)
            self.kills += 1
            time.sleep(DOWN_S)
            self.ready.append(self.stage.start_host(name))
