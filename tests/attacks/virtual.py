"""A simulated device in the victim's place: what an agent refuses, it has to refuse as well."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import httpx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pilotwave_cli.simulate.believing import Trust
from pilotwave_cli.simulate.device import Device
from pilotwave_cli.simulate.profile import Profile, Slice
from pilotwave_cli.simulate.tally import Tally
from pilotwave_protocol.states import ModelState, Reason
from tests.attacks.victim import Victim
from tests.peers.registry import Registry, example

T = TypeVar("T")
HERE = Slice("here", 1.0, mbit_s=1e6, latency_ms=0)


class VirtualVictim:
    """A simulated device that runs 1.0.0 of `detector`; 1.1.0 is published, ready to be ordered."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self._loop = asyncio.new_event_loop()
        self._http = self._do(self._client)
        self._trust = Trust(registry.url, registry.root, self._http)
        self._device = Device(
            name="cam-1",
            fleet="",
            key=Ed25519PrivateKey.generate(),
            slice=HERE,
            profile=Profile((HERE,), selftest_s=0.0, probation_s=0.0),
            http=self._http,
            trust=self._trust,
            tally=Tally(),
            chance=random.Random(1),
        )
        self._do(lambda: self._device.enrol("good"))
        self._do(self._device.check_in)
        self.old = registry.publish("detector", "1.0.0", example("1.0.0"))
        registry.order(self.old)
        self.works()
        assert self.runs() == "1.0.0"
        self.new = registry.publish("detector", "1.1.0", example("1.1.0"))

    async def _client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self.registry.url, timeout=30)

    def _do(self, deed: Callable[[], Coroutine[Any, Any, T]]) -> T:
        return self._loop.run_until_complete(deed())

    def close(self) -> None:
        """Be gone."""
        self._do(self._http.aclose)
        self._trust.close()
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()

    async def _poll(self) -> None:
        self._device.etag = ""  # so that whatever the registry holds now is looked at
        await self._device.poll()
        for model in self._device.models.values():
            if model.work is not None:
                await model.work
        await self._device.check_in()

    # --- as `Victim` has it

    def works(self) -> None:
        """Poll, do what is ordered, and report."""
        self._do(self._poll)

    def runs(self, model: str = "detector") -> str | None:
        """Return the version of a model that runs, if one does."""
        known = self._device.models.get(model)
        current = known.report.current if known else None
        return current.version if current else None

    def served(self) -> dict[str, bytes]:
        """Return what runs, by model."""
        return {model: (self.runs(model) or "").encode() for model in self._device.models}

    def refuses(self, reason: Reason) -> None:
        """See the device say no for exactly this reason, tell it, and stay on what it runs."""
        before = self.served()
        self.works()
        told = self.registry.check_ins[-1].refusal
        assert told is not None
        assert told["reason"] == reason, told
        assert len(told["detail"]) > 15, told
        assert self.served() == before
        assert self._device.models["detector"].report.state is ModelState.HEALTHY

    def recovers(self) -> None:
        """See the device take an honest order afterwards."""
        self.registry.bend = lambda path, reply: reply
        self.registry.order(self.new)
        self.works()
        assert self.runs() == "1.1.0"
        assert self.registry.check_ins[-1].refusal is None
        assert self._device.models["detector"].report.state is ModelState.HEALTHY

    @property
    def outside(self) -> set[Path]:
        """Return nothing: it writes no file of a version."""
        return set()


Believer = Victim | VirtualVictim
"""Whoever judges directives: an agent, or a device of `pilotwave simulate`."""
