"""Many virtual devices on one event loop, from their enrolment to their end."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pilotwave_cli.client import Api
from pilotwave_cli.errors import Failed
from pilotwave_cli.simulate.believing import Trust
from pilotwave_cli.simulate.device import Device
from pilotwave_cli.simulate.learning import Learner
from pilotwave_cli.simulate.profile import Profile, Slice
from pilotwave_cli.simulate.tally import Tally

CODES_AT_ONCE = 100
ENROL_AT_ONCE = 32
SHOW_S = 2.0
KEEP_S = 3.0


class Queued(httpx.AsyncClient):
    """A client whose requests wait for one of `most` places before they come to its pool, which
    looks through all that wait there each time that one ends."""

    def __init__(self, most: int, **given: Any) -> None:
        super().__init__(**given)
        self._room = asyncio.Semaphore(most)

    async def send(self, *words: Any, **given: Any) -> httpx.Response:
        async with self._room:
            return await super().send(*words, **given)


@dataclass(frozen=True)
class FleetOptions:
    """What is simulated. `seconds` None: until it is stopped. Of the devices the share `learn` take
    part in training plans; of these the share `lie` have wrong labels."""

    devices: int
    prefix: str
    profile: Profile
    labels: dict[str, str]
    seconds: float | None = None
    connections: int = 100
    seed: int | None = None
    keep: bool = False
    learn: float = 0.0
    lie: float = 0.0


@dataclass
class Simulation:
    """`run` enrols the devices, lets them live, and takes them out of the fleet again."""

    wish: FleetOptions
    api: Api
    root: bytes
    show: Callable[[dict[str, Any]], None]

    def run(self) -> dict[str, Any]:
        """Return the account. Raises `Failed`. Ctrl-C ends it in good order."""
        self.tally = Tally()
        self.devices: list[Device] = []
        try:
            asyncio.run(self._run())
        except KeyboardInterrupt:
            pass
        finally:
            if not self.wish.keep:
                self._take_out()
        return self.account()

    async def _run(self) -> None:
        most = self.wish.connections
        # kept for less than the server keeps them, so that none is used that it is just closing
        limits = httpx.Limits(
            max_connections=most, max_keepalive_connections=most, keepalive_expiry=KEEP_S
        )
        url = self.api.config.url
        timeout = httpx.Timeout(60, connect=30, pool=600)
        async with Queued(most, base_url=url, limits=limits, timeout=timeout) as http:
            trust = Trust(url, self.root, http)
            try:
                await self._enrol(http, trust)
                await self._live()
            finally:
                trust.close()

    async def _enrol(self, http: httpx.AsyncClient, trust: Trust) -> None:
        """Join all devices, a code for each."""
        made = list(self._made(http, trust))
        room = asyncio.Semaphore(ENROL_AT_ONCE)

        async def join(device: Device, code: str) -> None:
            async with room:
                await device.enrol(code)
                self.devices.append(device)

        for one in self.wish.profile.slices:
            mine = [device for device in made if device.slice is one]
            for begin in range(0, len(mine), CODES_AT_ONCE):
                some = mine[begin : begin + CODES_AT_ONCE]
                codes = await asyncio.to_thread(self._codes, one, len(some))
                await asyncio.gather(*(join(d, c) for d, c in zip(some, codes, strict=True)))
                self.show({"enrolled": len(self.devices), "devices": self.wish.devices})

    def _made(self, http: httpx.AsyncClient, trust: Trust) -> Iterator[Device]:
        w = self.wish
        chance = random.Random(w.seed)
        learners = 0
        for number in range(w.devices):
            made = Device(
                name=f"{w.prefix}-{number:06d}",
                fleet="",
                key=Ed25519PrivateKey.generate(),
                slice=w.profile.slice_of(number, w.devices),
                profile=w.profile,
                http=http,
                trust=trust,
                tally=self.tally,
                chance=random.Random(chance.random()),
            )
            if _falls_on(number, w.learn):
                lies = _falls_on(learners, w.lie)
                made.learner = Learner(random.Random(chance.random()), lies=lies)
                learners += 1
            yield made

    def _codes(self, one: Slice, count: int) -> list[str]:
        labels = {**one.labels, **self.wish.labels}
        made = self.api.post("/enrolment-codes", {"count": count, "labels": labels})
        return [item["code"] for item in made["items"]]

    async def _live(self) -> None:
        tasks = [asyncio.create_task(device.run()) for device in self.devices]
        watch = asyncio.create_task(self._watch())
        try:
            done, _ = await asyncio.wait(
                [watch, *tasks],
                timeout=self.wish.seconds,
                return_when=asyncio.FIRST_EXCEPTION,
            )
            for task in done:
                task.result()
        finally:
            works = [m.work for d in self.devices for m in d.models.values() if m.work]
            for task in [watch, *tasks, *works]:
                task.cancel()
            await asyncio.gather(watch, *tasks, *works, return_exceptions=True)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(SHOW_S)
            self.show(self.account())

    def _take_out(self) -> None:
        for device in self.devices:
            try:
                self.api.post(f"/devices/{device.name}/decommission")
            except Failed as error:
                self.tally.said(f"{device.name} could not be taken out: {error}")

    def account(self) -> dict[str, Any]:
        """What has happened so far."""
        runs: Counter[str] = Counter()
        states: Counter[str] = Counter()
        for device in self.devices:
            for model in device.models.values():
                current = model.report.current
                runs[f"{model.report.model} {current.version if current else '-'}"] += 1
                states[str(model.report.state)] += 1
        polls, check_ins = "/device/v1/directive", "/device/v1/check-in"
        return {
            "devices": len(self.devices),
            "runs": dict(sorted(runs.items())),
            "states": dict(sorted(states.items())),
            "counts": dict(sorted(self.tally.counts.items())),
            "poll_p50_ms": self.tally.quantile_ms(polls, 0.5),
            "poll_p99_ms": self.tally.quantile_ms(polls, 0.99),
            "check_in_p99_ms": self.tally.quantile_ms(check_ins, 0.99),
            "last_trouble": self.tally.last_words or None,
        }


def _falls_on(number: int, share: float) -> bool:
    """Say whether this one of many, counted from 0, is of the share: they are spread evenly."""
    return int((number + 1) * share + 1e-9) > int(number * share + 1e-9)
