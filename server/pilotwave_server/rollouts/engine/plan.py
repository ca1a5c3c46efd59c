"""Decide what a rollout does next. It takes no clock, no database and no settings, so every rule
can be read and tested here.

A wave is over when, in this order: enough of its devices have settled (healthy or failed); each of
its gates passes; that has been so for the soak time; an operator agreed, where the wave wants one.
In a shadow wave, settled are the devices that compared enough calls (`plan_shadow.py`). The next
wave opens, or after the last one, once no device is left that it could still reach, the version
becomes the group's baseline. A gate that fails ends or pauses the rollout at any moment.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from pilotwave_protocol.durations import span
from pilotwave_server.rollouts.engine.actions import (
    Abort,
    Action,
    CallSilent,
    Complete,
    EndRollback,
    ExpireLeases,
    Measure,
    OpenNext,
    Pause,
    RollBack,
    Soak,
    Start,
    Tell,
)
from pilotwave_server.rollouts.engine.picture import Moment, OpenWave, Picture
from pilotwave_server.rollouts.engine.plan_shadow import GATE, passes_over, shadow_sample
from pilotwave_server.rollouts.gates.alpha import counted
from pilotwave_server.rollouts.gates.judge_paired import NO_USER
from pilotwave_server.rollouts.gates.verdict import Verdict, Word
from pilotwave_server.rollouts.policies.policy import OnFailure, Wave
from pilotwave_server.rollouts.states import RolloutState

S = RolloutState
TELL_AGAIN = timedelta(seconds=5)
_WORST = (Word.PASS, Word.INCONCLUSIVE, Word.WAIT, Word.FAIL)


def plan(p: Picture, m: Moment) -> list[Action]:
    """Return what is to be done now; at most one of it is a `Step`."""
    match p.state:
        case S.SCHEDULED:
            return list(_scheduled(p, m))
        case S.RUNNING | S.PAUSED:
            return [*_deadlines(p, m), *_under_way(p, m)]
        case S.ROLLING_BACK:
            return list(_rolling_back(p, m))
        case _:
            return []


def worst(verdicts: tuple[Verdict, ...]) -> Verdict | None:
    """Return the verdict that decides, the first of the gravest; None where there is no gate."""
    return max(verdicts, key=lambda v: _WORST.index(v.word), default=None)


def _scheduled(p: Picture, m: Moment) -> Iterator[Action]:
    if p.start_at is not None and p.start_at > m.now:
        return
    if p.withheld:
        yield Abort(p.id, p.generation, f"it was to start now, but {p.withheld}")
    else:
        yield Start(p.id, p.generation, "started at the time it was scheduled for")


def _deadlines(p: Picture, m: Moment) -> Iterator[Action]:
    if p.idle_leases:
        yield ExpireLeases(p.id, m.before(p.policy.deadlines.lease_s))
    for every_s in p.silent:
        yield CallSilent(p.id, m.before(m.silent_s(p.policy, every_s)), every_s)


def _under_way(p: Picture, m: Moment) -> Iterator[Action]:
    running = p.state is S.RUNNING
    verdict = worst(p.verdicts)
    if p.withheld:
        yield RollBack(p.id, p.generation, f"rolled back: {p.withheld}", None, p.tally())
    elif verdict is not None and verdict.word is Word.FAIL:
        yield from _failed(p, m, verdict)
    elif running and p.end_at is not None and p.end_at <= m.now:
        told = f"paused: it had to be complete by {_at(p.end_at)}"
        yield Pause(p.id, p.generation, told, None, p.tally())
    elif running and p.open is None:
        yield _open(p, 0, "the rollout has started")
    elif running and p.open is not None:
        yield from _toward_next(p, p.open, m)


def _failed(p: Picture, m: Moment, verdict: Verdict) -> Iterator[Action]:
    numbers, judged = {**p.tally(), **verdict.numbers}, _judged(p, verdict, m)
    told = _named(verdict)
    if p.in_shadow and NO_USER not in told:
        told = f"{told}. {NO_USER}"
    if p.policy.on_failure is OnFailure.ROLLBACK:
        sentence = f"rolled back: {told}"
        yield RollBack(p.id, p.generation, sentence, verdict, numbers, judged)
    elif p.state is S.RUNNING:
        sentence = f"paused: {told}"
        yield Pause(p.id, p.generation, sentence, verdict, numbers, judged)


def _toward_next(p: Picture, open: OpenWave, m: Moment) -> Iterator[Action]:
    wave = p.policy.waves[open.index]
    verdict = worst(tuple(v for v in p.verdicts if not passes_over(v, wave)))
    if p.in_shadow and GATE in p.overruled:
        verdict = None  # a person goes on without what the gates would wait for
    short = _sample(p, wave, m)
    if isinstance(short, Measure):
        yield short
        return
    if short is not None and short.word is Word.INCONCLUSIVE:
        yield from _nobody_takes_part(p, open, wave, short, m)
        return
    if short is not None and p.size == 0 and wave.canary is None and not _is_last(p, open):
        told = f"wave {wave.name} has no device that could take the version"
        yield _open(p, open.index + 1, told, _judged(p, None, m))
        return
    if short is None and verdict is not None and verdict.word is Word.WAIT:
        short = verdict
    if short is not None:
        if open.soaking_since is not None:
            yield Soak(p.id, open.index, None)
        yield from _tell(p, open, m, short)
        return
    if open.soaking_since is None or open.soaking_since > m.now:
        yield Soak(p.id, open.index, m.now)
        open = OpenWave(open.index, open.opened_at, m.now, open.told)
    yield from _soaked(p, open, wave, verdict, m)


def _nobody_takes_part(
    p: Picture, open: OpenWave, wave: Wave, none: Verdict, m: Moment
) -> Iterator[Action]:
    """Open the next wave if the shadow wave is optional, else leave it to a person."""
    judged = told_verdict(none, (*p.verdicts, none), m.now)
    if wave.shadow is not None and wave.shadow.optional:
        yield _open(p, open.index + 1, f"the wave is optional: {_named(none)}", judged, none)
        return
    told = f"paused for a person to decide: {_named(none)}"
    yield Pause(p.id, p.generation, told, none, {**p.tally(), **none.numbers}, judged)


def _soaked(
    p: Picture, open: OpenWave, wave: Wave, verdict: Verdict | None, m: Moment
) -> Iterator[Action]:
    unclear = verdict is not None and verdict.word is Word.INCONCLUSIVE
    was_away = open.soaking_since is not None and open.soaking_since < m.listening_since
    if p.check_in_s is None and (unclear or was_away):
        yield Measure("check_in_s")
        return
    reports_s = 2 * (p.check_in_s or 0)
    # what no device has reported yet may come with its next report
    soak_s = max(wave.soak_s, reports_s) if unclear else wave.soak_s
    left = soak_s - _soaking(open, m, soak_s, heard_s=min(soak_s, reports_s))
    if left > 0:
        until = m.now + timedelta(seconds=left)
        told = f"{_good(p, verdict)}; this must hold until {_at(until)} ({span(soak_s)})"
        yield from _tell(p, open, m, Verdict("soak", Word.WAIT, told, {"soak_s": soak_s}))
    elif unclear and verdict is not None:
        told = f"paused for a person to decide: {_named(verdict)}"
        numbers = {**p.tally(), **verdict.numbers}
        yield Pause(p.id, p.generation, told, verdict, numbers, _judged(p, verdict, m))
    elif _is_last(p, open):
        yield from _last(p, open, verdict, m)
    elif wave.manual:
        told = f"{_good(p, verdict)}; an operator opens the next wave (`next`)"
        yield from _tell(p, open, m, Verdict("manual", Word.WAIT, told))
    else:
        soaked = f"; this held for {span(wave.soak_s)}" if wave.soak_s else ""
        told = f"{_good(p, verdict)}{soaked}"
        yield _open(p, open.index + 1, told, _judged(p, verdict, m), verdict)


def _soaking(open: OpenWave, m: Moment, soak_s: int, *, heard_s: int) -> float:
    """Return for how long it has soaked. After a break of the server, devices get `heard_s` to say
    what happened meanwhile."""
    since = open.soaking_since or m.now
    elapsed = (m.now - since).total_seconds()
    listened = (m.now - m.listening_since).total_seconds()
    if since < m.listening_since and listened < heard_s:
        return min(elapsed, soak_s - heard_s + listened)
    return elapsed


def _last(p: Picture, open: OpenWave, verdict: Verdict | None, m: Moment) -> Iterator[Action]:
    if p.left is None:
        yield Measure("left")
        return
    missing = p.left
    good, judged = _good(p, verdict), _judged(p, verdict, m)
    if not missing and not p.in_flight:
        told = f"completed: {good}; {p.group} now runs {p.model} {p.version}"
        yield Complete(p.id, p.generation, told, _passed(verdict), p.tally(), judged)
        return
    waits = counted(missing, "device has", "devices have")
    waits += f" not started yet, {p.in_flight} in flight"
    deadline_s = p.policy.deadlines.unreached_s
    since = max(open.opened_at, p.last_change or open.opened_at)
    if deadline_s is not None and m.waited(since) >= deadline_s:
        told = f"completed: {good}; {counted(missing, 'device', 'devices')} did not start within "
        told += span(deadline_s)
        numbers = {**p.tally(), "unreached": missing}
        yield Complete(p.id, p.generation, told, _passed(verdict), numbers, judged)
        return
    numbers = {"unreached": missing, "in_flight": p.in_flight}
    yield from _tell(p, open, m, Verdict("unreached", Word.WAIT, f"{good}; {waits}", numbers))


def _rolling_back(p: Picture, m: Moment) -> Iterator[Action]:
    if not p.still_on:
        told = "no device that took the version reports that it still runs it"
        if not p.unheard and not p.kept:
            told = "every device that took the version has left it"
        if p.open is not None and p.policy.waves[p.open.index].shadow is not None:
            told = "no device had switched to the version"
        yield EndRollback(p.id, p.generation, _and_others(p, told), None, _left_behind(p))
    elif p.rolling_back_since is not None:
        waited = m.waited(p.rolling_back_since)
        if waited >= m.silent_s(p.policy, p.check_in_s):
            have = counted(p.still_on, "device has", "devices have")
            told = f"{have} not yet reported leaving the version; each poll says to"
            yield EndRollback(p.id, p.generation, _and_others(p, told), None, _left_behind(p))


def _and_others(p: Picture, told: str) -> str:
    """Say who else runs the version, and why."""
    parts = [told]
    if p.unheard:
        have = counted(p.unheard, "device has", "devices have")
        them = "it" if p.unheard == 1 else "them"
        parts.append(f"{have} been silent lately; the next poll tells {them} to leave it")
    for why, number in p.kept:
        parts.append(f"{counted(number, 'device keeps', 'devices keep')} it: {why}")
    return "; ".join(parts)


def _left_behind(p: Picture) -> dict[str, int]:
    kept = sum(number for _, number in p.kept)
    found = {"still_on": p.still_on, "unheard": p.unheard, "kept": kept}
    return {name: number for name, number in found.items() if number}


def _sample(p: Picture, wave: Wave, m: Moment) -> Verdict | Measure | None:
    """Say what the wave lacks of its minimum sample, which is never more than there are devices."""
    if p.in_shadow:
        return shadow_sample(p, wave, m) if p.size is not None else Measure("size")
    if p.settled >= wave.min_sample:
        return None
    if p.size is None:
        return Measure("size")
    needed = min(wave.min_sample, p.size)
    if p.settled >= needed and needed:
        return None
    if not needed:
        told = "the open waves hold no device yet that could take the version"
        return Verdict("sample", Word.WAIT, told, {"settled": p.settled, "size": 0})
    told = f"{p.settled} of at least {counted(needed, 'device', 'devices')} finished, "
    told += f"{p.in_flight} in flight"
    return Verdict("sample", Word.WAIT, told, {"settled": p.settled, "needed": needed})


def _is_last(p: Picture, open: OpenWave) -> bool:
    return open.index + 1 == len(p.policy.waves)


def _open(
    p: Picture,
    index: int,
    why: str,
    judged: dict[str, Any] | None = None,
    verdict: Verdict | None = None,
) -> OpenNext:
    name = p.policy.waves[index].name
    sentence = f"wave {index + 1} ({name}) opens: {why}"
    return OpenNext(p.id, p.generation, sentence, _passed(verdict), p.tally(), judged, wave=index)


def _passed(verdict: Verdict | None) -> Verdict:
    return verdict or Verdict("none", Word.PASS, "no gate")


def _judged(p: Picture, verdict: Verdict | None, m: Moment) -> dict[str, Any]:
    """What the open wave is left with."""
    counted = Verdict("sample", Word.PASS, _good(p, None), p.tally())
    return told_verdict(verdict or counted, p.verdicts, m.now)


def _good(p: Picture, verdict: Verdict | None) -> str:
    if verdict is not None:
        return _named(verdict)
    if p.in_shadow:
        return f"{counted(p.settled, 'device', 'devices')} tried it in shadow, {p.failed} failed"
    return f"{counted(p.settled, 'device', 'devices')} finished, {p.failed} failed"


def _named(verdict: Verdict) -> str:
    part = f", {verdict.slice}" if verdict.slice else ""
    return f"{verdict.gate}{part}: {verdict.sentence}"


def _tell(p: Picture, open: OpenWave, m: Moment, verdict: Verdict) -> Iterator[Action]:
    """Write it down if it is news: a new word at once, new numbers now and then."""
    told = open.told or {}
    if (told.get("word"), told.get("sentence")) == (str(verdict.word), verdict.sentence):
        return
    if told.get("word") == str(verdict.word) and told.get("gate") == verdict.gate:
        at = datetime.fromisoformat(told["at"])
        if m.now - TELL_AGAIN < at <= m.now:
            return
    yield Tell(p.id, open.index, told_verdict(verdict, p.verdicts, m.now), open.told)


def told_verdict(verdict: Verdict, all: tuple[Verdict, ...], now: datetime) -> dict[str, Any]:
    """Return a verdict as plain JSON, with those of each gate below it."""
    return {**_plain(verdict), "at": now.isoformat(), "gates": [_plain(v) for v in all]}


def _plain(verdict: Verdict) -> dict[str, Any]:
    return {**vars(verdict), "word": str(verdict.word), "numbers": dict(verdict.numbers)}


def _at(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"
