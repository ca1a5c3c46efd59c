"""One virtual device: polls, checks in, changes versions as its profile has it.

What it says and believes is real: its own key, signed check-ins, directives judged. What it does
not have are files, a model that runs, and power.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from typing import Any

import httpx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pilotwave_cli.errors import Failed
from pilotwave_cli.simulate.believing import Trust
from pilotwave_cli.simulate.comparing import asked_to_compare, compared
from pilotwave_cli.simulate.learning import Learner
from pilotwave_cli.simulate.model import Model, build_of, try_of, wish_of
from pilotwave_cli.simulate.profile import Behaviour, Profile, Slice
from pilotwave_cli.simulate.tally import Tally
from pilotwave_cli.simulate.windows import in_shadow, in_use, shadow_calls
from pilotwave_protocol import dsse, names
from pilotwave_protocol.antirollback import AntiRollback
from pilotwave_protocol.errors import ProtocolError, RefusedError
from pilotwave_protocol.figures import MEASURED
from pilotwave_protocol.manifest import Variant
from pilotwave_protocol.messages.check_in import (
    CHECK_IN_TYPE,
    MAX_EVENTS,
    MAX_METRICS,
    CheckIn,
    DeviceEvent,
    Installed,
    MetricReport,
    ModelReport,
)
from pilotwave_protocol.messages.check_in_reply import parse_check_in_reply
from pilotwave_protocol.messages.directive import Entry
from pilotwave_protocol.messages.enrol import ENROL_TYPE, Enrol, parse_enrol_reply
from pilotwave_protocol.shadow import SHADOW
from pilotwave_protocol.sketch import Sketch
from pilotwave_protocol.states import ModelState, Reason

AGENT = "simulated"


def now() -> datetime:
    return datetime.now(timezone.utc).replace(microsecond=0)


@dataclass
class Device:
    """`run` lives its life until it is cancelled."""

    name: str
    fleet: str
    key: Ed25519PrivateKey
    slice: Slice
    profile: Profile
    http: httpx.AsyncClient
    trust: Trust
    tally: Tally
    chance: random.Random
    seq: int = 0
    token: str = ""
    etag: str = ""
    poll_s: float = 60.0
    check_in_s: float = 900.0
    models: dict[str, Model] = field(default_factory=dict)
    silent: bool = False
    learner: Learner | None = None
    _memory: AntiRollback = field(default_factory=AntiRollback)
    _events: list[DeviceEvent] = field(default_factory=list)
    _windows: list[MetricReport] = field(default_factory=list)
    _next_event: int = 1
    _next_window: int = 1
    _measured: datetime = field(default_factory=now)
    _soon: asyncio.Event = field(default_factory=asyncio.Event)
    _refusal: dict[str, str] | None = None

    async def run(self) -> None:
        """Poll and check in at the server's pace, or the profile's."""
        self._goes_offline = self.chance.random() < self.slice.offline.share
        self._phase = self.chance.random()
        clock = asyncio.get_running_loop().time
        next_poll = next_check_in = clock() + self.chance.random() * (self.profile.poll_s or 5)
        while True:
            wait = max(0.0, min(next_poll, next_check_in) - clock())
            try:
                await asyncio.wait_for(self._soon.wait(), wait)
            except asyncio.TimeoutError:
                pass
            if self.silent or self._is_offline(clock()):
                self._soon.clear()
                await asyncio.sleep(1)
                continue
            if self._soon.is_set() or clock() >= next_check_in or not self.token:
                self._soon.clear()
                await self._try(self.check_in())
                next_check_in = clock() + (self.profile.check_in_s or self.check_in_s)
            elif clock() >= next_poll:
                await self._try(self.poll())
            next_poll = clock() + (self.profile.poll_s or self.poll_s) * self.chance.uniform(
                0.9, 1.1
            )

    def _is_offline(self, moment: float) -> bool:
        o = self.slice.offline
        return self._goes_offline and (moment / o.every_s + self._phase) % 1 < o.for_s / o.every_s

    async def _try(self, deed: Any) -> None:
        try:
            await deed
        except (httpx.HTTPError, Failed) as error:
            self.tally.count("unreachable")
            self.tally.said(str(error) or type(error).__name__)

    async def send(self, method: str, path: str, **given: Any) -> httpx.Response:
        await asyncio.sleep(self.slice.latency_ms / 1000)
        began = asyncio.get_running_loop().time()
        answer = await self.http.request(method, path, **given)
        self.tally.took(path, asyncio.get_running_loop().time() - began)
        return answer

    # --- enrolment, polls, check-ins

    async def enrol(self, code: str) -> None:
        """Join with a one-time code. Raises `Failed`."""
        wish = Enrol(
            self.name, dsse.raw_public(self.key.public_key()).hex(), code, dict(self.slice.facts)
        )
        raw = dsse.sign(ENROL_TYPE, wish.to_bytes(), self.key)
        answer = await self.send("POST", "/device/v1/enrol", content=raw, headers=JSON)
        if answer.status_code not in (200, 201):
            raise Failed(f"{self.name} could not enrol: {answer.text[:200]}")
        reply = parse_enrol_reply(answer.content)
        self.fleet, self.poll_s = reply.fleet, float(reply.poll_interval_s)
        self.check_in_s = float(reply.check_in_interval_s)

    async def poll(self) -> None:
        """Ask for the directive; take it if it is new and passes."""
        headers = {"Authorization": f"Bearer {self.token}", "If-None-Match": self.etag}
        answer = await self.send("GET", "/device/v1/directive", headers=headers)
        self.tally.count(f"poll_{answer.status_code}")
        if answer.status_code == 401:
            self.token = ""
            self._soon.set()
        if answer.status_code != 200:
            return
        try:
            accepted = await self.trust.judge(
                answer.content,
                hint=answer.headers.get("pilotwave-tuf", ""),
                fleet=self.fleet,
                device=self.name,
                facts=self.slice.facts,
                now=now(),
                memory=self._memory,
                token=self.token,
            )
        except RefusedError as error:
            self._refuse(error)
            return
        self._memory = accepted.memory
        self.etag, self._refusal = answer.headers.get("etag", ""), None
        self.tally.count("directives_accepted")
        for version in accepted.entries:
            self._obey(version.entry, version.variant)

    def _refuse(self, error: RefusedError) -> None:
        self.tally.count(f"refused_{error.reason}")
        self._refusal = {"reason": str(error.reason), "detail": str(error)[:500]}
        self._soon.set()

    async def check_in(self) -> None:
        """Send a signed report."""
        self._measure()
        self.seq += 1
        report = CheckIn(
            fleet=self.fleet,
            device=self.name,
            seq=self.seq,
            agent=self._agent(),
            directive_seq=self._memory.directive_seq,
            tuf={"root": 1, "timestamp": 1, "snapshot": 1},
            models=tuple(m.report for m in self.models.values()),
            events=tuple(self._events[:MAX_EVENTS]),
            facts=dict(self.slice.facts) if self.seq == 1 else None,
            refusal=self._refusal,
            metrics=tuple(self._windows[:MAX_METRICS]),
        )
        raw = dsse.sign(CHECK_IN_TYPE, report.to_bytes(), self.key)
        answer = await self.send("POST", "/device/v1/check-in", content=raw, headers=JSON)
        self.tally.count(f"check_in_{answer.status_code}")
        if answer.status_code == 409:
            self.seq = max(self.seq, int(answer.json().get("last_seq", self.seq)))
        if answer.status_code != 200:
            self.tally.said(answer.text[:200])
            return
        try:
            reply = parse_check_in_reply(answer.content)
        except ProtocolError as error:
            raise Failed(f"the answer to a check-in is none: {error}") from error
        self.token = reply.token
        self.poll_s, self.check_in_s = (
            float(reply.poll_interval_s),
            float(reply.check_in_interval_s),
        )
        self._events = [e for e in self._events if e.id > reply.acked_event]
        self._windows = [w for w in self._windows if w.id > reply.acked_metric]
        if self.learner is not None:
            await self.learner.look(self)

    # --- versions

    def _agent(self) -> str:
        """What it calls itself: the version of the agent that it runs, once it has one."""
        own = self.models.get(names.AGENT_MODEL)
        current = own.report.current if own else None
        return current.version if current else AGENT

    def _obey(self, entry: Entry, variant: Variant) -> None:
        model = self.models.setdefault(
            entry.model, Model(ModelReport(entry.model, ModelState.IDLE))
        )
        current = model.report.current
        there = current is not None and (current.sha256, current.variant) == build_of(entry)
        known = model.order is not None and wish_of(model.order) == wish_of(entry)
        model.order = entry
        self._compare(model, entry)
        if there and model.report.state in (ModelState.FAILED, ModelState.ROLLED_BACK):
            self._move(model, ModelState.HEALTHY, candidate=None)
        if there and model.shadow:
            self._end_shadow(model)
        model.shadow = SHADOW in entry.conditions
        if known or there or try_of(entry) in model.failed:
            return
        if model.work is not None:
            model.work.cancel()
        model.work = asyncio.create_task(self._change(model, entry, variant))

    def _compare(self, model: Model, entry: Entry) -> None:
        """Say what it measured of the variants that it is asked to compare, once."""
        of, variants = asked_to_compare(entry.conditions)
        if not variants or model.compared == (entry.sha256, of):
            return
        model.compared = entry.sha256, of
        for detail in compared(self.profile, self.slice.name, variants, self.chance):
            self._event(MEASURED, entry.model, entry.version, detail=detail)
        self.tally.count("compared")
        self._soon.set()

    async def _change(self, model: Model, entry: Entry, variant: Variant) -> None:
        """From the order to healthy, failed or rolled back."""
        does = self.profile.behaviour(entry.model, entry.version, self.slice.name)
        new = Installed(entry.version, entry.sha256, entry.variant, entry.counter)
        before = model.report.current
        back, tried = model.report.previous, model.report.state is ModelState.SHADOWING
        if tried and model.report.candidate == new:
            pass  # it is there, and tested
        elif back is None or (back.sha256, back.variant) != build_of(entry):
            self._move(model, ModelState.FETCHING, candidate=new)
            try:
                await self._download(variant)
            except RefusedError as error:
                self._fail(model, entry, new, error.reason, str(error))
                return
            self._move(model, ModelState.TESTING, candidate=new)
            await asyncio.sleep(self.profile.selftest_s)
            if self.chance.random() < does.selftest_failure:
                self._fail(
                    model, entry, new, Reason.SELFTEST_MISMATCH, "simulated self-test failure"
                )
                return
        if SHADOW in entry.conditions:
            self.tally.count("in_shadow")
            self._event("shadowing", entry.model, entry.version)
            self._move(model, ModelState.SHADOWING, candidate=new)
            return
        self._move(
            model,
            ModelState.PROBATION,
            current=new,
            previous=before,
            candidate=None,
            event="switched",
        )
        await self._on_trial(model, entry, new, before, does)

    def _end_shadow(self, model: Model) -> None:
        """Forget the version that was tried, or is on its way to be."""
        if model.work is not None:
            model.work.cancel()
        tried = model.report.candidate
        if tried is not None:
            self._event("shadow_ended", model.report.model, tried.version)
        self._move(model, ModelState.HEALTHY, candidate=None)

    async def _on_trial(
        self, model: Model, entry: Entry, new: Installed, before: Installed | None, does: Behaviour
    ) -> None:
        if self.chance.random() < does.silent:
            self.silent = True
            self.tally.count("silent")
            return
        await asyncio.sleep(self.profile.probation_s)
        if self.chance.random() < does.probation_failure:
            model.failed.add(try_of(entry))
            self.tally.count("rolled_back")
            gone = {"reason": str(Reason.PROBE_FAILED), "detail": "simulated health check failure"}
            self._event("rolled_back", entry.model, entry.version, **gone)
            self._move(
                model, ModelState.ROLLED_BACK, current=before, previous=None, candidate=new, **gone
            )
            return
        self.tally.count("healthy")
        self._move(model, ModelState.HEALTHY, event="healthy")

    async def _download(self, variant: Variant) -> None:
        size = sum(file.size for file in variant.files)
        try:
            await self.trust.fetch(variant, self.token)
        except httpx.HTTPError as error:
            raise RefusedError(Reason.BLOB_UNAVAILABLE, str(error)) from error
        await asyncio.sleep(size * 8 / (self.slice.mbit_s * 1e6))

    def _fail(
        self, model: Model, entry: Entry, new: Installed, reason: Reason, detail: str
    ) -> None:
        model.failed.add(try_of(entry))
        self.tally.count("failed")
        told = {"reason": str(reason), "detail": detail[:500]}
        self._event("failed", entry.model, entry.version, **told)
        self._move(model, ModelState.FAILED, candidate=new, **told)

    def _move(
        self, model: Model, state: ModelState, *, event: str | None = None, **changes: Any
    ) -> None:
        self._measure()
        told = {"reason": None, "detail": None, **changes}
        model.report = replace(model.report, state=state, **told)
        current = model.report.current
        if event and current is not None:
            self._event(event, model.report.model, current.version)
        if state is not ModelState.TESTING:
            self._soon.set()

    def _event(self, kind: str, model: str, version: str, **told: Any) -> None:
        self._events.append(DeviceEvent(self._next_event, now(), kind, model, version, **told))
        self._next_event += 1

    # --- live metrics

    def _measure(self) -> None:
        """Close a window of what the models in use measured since the last one."""
        moment = now()
        seconds = (moment - self._measured).total_seconds()
        if seconds < 1:
            return
        begun, self._measured = self._measured, moment
        for model in self.models.values():
            if model.report.current is not None and model.report.model != names.AGENT_MODEL:
                self._window(model.report.model, model.report.current.version, begun, moment)
                self._compared(model, begun, moment)
        del self._windows[: -2 * MAX_METRICS]

    def _window(self, model: str, version: str, begun: datetime, moment: datetime) -> None:
        m = self.slice.metrics
        does = self.profile.behaviour(model, version, self.slice.name)
        calls = round((moment - begun).total_seconds() * m.calls_per_s)
        if not calls:
            return
        sketches = in_use(calls, m, does, self.chance)
        self._report(model, version, sketches, begun, moment)

    def _compared(self, model: Model, begun: datetime, moment: datetime) -> None:
        """Report what calls show of the version in shadow, if there is one."""
        serves, tried, order = model.report.current, model.report.candidate, model.order
        shadowing = model.report.state is ModelState.SHADOWING and self.slice.live_model
        if not shadowing or serves is None or tried is None or order is None:
            return
        m, name = self.slice.metrics, model.report.model
        all_calls = round((moment - begun).total_seconds() * m.calls_per_s)
        calls = shadow_calls(all_calls, order.conditions)
        if calls:
            old, new = (
                self.profile.behaviour(name, one.version, self.slice.name)
                for one in (serves, tried)
            )
            found = in_shadow(calls, m, old, new, self.chance)
            self._report(name, tried.version, found, begun, moment)

    def _report(
        self,
        model: str,
        version: str,
        sketches: Mapping[str, Sketch],
        begun: datetime,
        moment: datetime,
    ) -> None:
        for metric, sketch in sketches.items():
            window = MetricReport(self._next_window, model, version, metric, begun, moment, sketch)
            self._windows.append(window)
            self._next_window += 1


JSON: Mapping[str, str] = {"Content-Type": "application/json"}
