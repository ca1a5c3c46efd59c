"""Decide how far the devices of a shadow wave are, and when nobody can take part. Pure.

A device counts once it has given as many inputs to both versions as the wave asks for, or the
version failed there. Where nobody takes part, a person has to decide, unless the wave is optional.
"""

from __future__ import annotations

from pilotwave_protocol.durations import span
from pilotwave_server.rollouts.engine.picture import Moment, Picture
from pilotwave_server.rollouts.gates.alpha import counted
from pilotwave_server.rollouts.gates.verdict import Verdict, Word
from pilotwave_server.rollouts.policies.policy import Wave
from pilotwave_server.rollouts.policies.shadow import ShadowPart

GATE = "shadow"
"""What the verdict on the sample of a shadow wave is called, for an operator to overrule."""


def passes_over(verdict: Verdict, wave: Wave) -> bool:
    """Say whether the verdict holds nothing up: nobody reports what its gate looks at, in a shadow
    wave that is optional."""
    optional = wave.shadow is not None and wave.shadow.optional
    unheard = verdict.word is Word.INCONCLUSIVE and verdict.numbers.get("windows") == 0
    return optional and unheard


def shadow_sample(p: Picture, wave: Wave, m: Moment) -> Verdict | None:
    """Say what the wave lacks of its sample (WAIT), or that nobody takes part (INCONCLUSIVE). The
    picture's `size` is known."""
    shadow, size = wave.shadow or ShadowPart(), p.size or 0
    needed, done = min(wave.min_sample, size), p.compared + p.failed
    if GATE in p.overruled or (done and done >= needed):
        return None
    numbers = {"compared": p.compared, "failed": p.failed, "needed": needed, "size": size}

    def verdict(word: Word, told: str) -> Verdict:
        return Verdict(GATE, word, told, numbers)

    none = _nobody(p, m, size)
    if none is not None:
        return verdict(Word.INCONCLUSIVE, none)
    told = f"{done} of at least {counted(needed, 'device', 'devices')} compared "
    told += f"{counted(shadow.min_calls, 'call', 'calls')} each, {p.in_flight} in flight"
    open, deadline_s = p.open, p.policy.deadlines.unreached_s
    if open is not None and deadline_s is not None and m.waited(open.opened_at) >= deadline_s:
        return verdict(Word.INCONCLUSIVE, f"{told}, within {span(deadline_s)}")
    return verdict(Word.WAIT, told)


def _nobody(p: Picture, m: Moment, size: int) -> str | None:
    """Say why no device takes part, or None where one does or may still."""
    if not size and not p.failed:
        return (
            f"no device of the wave can try {p.model} {p.version} in shadow: that takes an agent "
            f"which knows how, and another version of {p.model} in use there"
        )
    since = p.shadow_since
    if since is None or p.comparing or p.failed or p.in_flight:
        return None
    patience_s = m.silent_s(p.policy, p.check_in_s)
    if m.waited(since) < patience_s:
        return None
    return (
        f"no application has compared a call in {span(patience_s)} on "
        f"{counted(p.settled, 'device', 'devices')} with the version in shadow: does one take "
        "part there, by LiveModel or its socket?"
    )
