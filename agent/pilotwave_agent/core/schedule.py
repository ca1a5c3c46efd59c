"""Say when the resident agent does what: pure arithmetic over one clock, in seconds.

The clock is the machine's uptime including suspend, so that a device that slept does one thing when
it wakes, and a clock that is set changes nothing. Intervals are the server's, within the device's
own caps; jitter keeps a fleet from coming all at once.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from pilotwave_protocol.messages.facts import BATTERY_INTERVAL_S

FIRST_RETRY_S = 2.0
LAST_RETRY_S = 900.0
COALESCE_S = 0.5
CALL_GAP_S = 1.0
LAST_CALL_GAP_S = 60.0
SECOND_LOOK_S = 2.0
NEVER = float("inf")


@dataclass
class Backoff:
    """Growing waits after failures in a row: doubled each time, with jitter, up to a cap."""

    chance: random.Random
    first_s: float = FIRST_RETRY_S
    last_s: float = LAST_RETRY_S
    failures: int = 0

    def next_s(self) -> float:
        """Return the wait after one more failure."""
        bound = min(self.first_s * float(1 << min(self.failures, 30)), self.last_s)
        self.failures += 1
        return bound * self.chance.uniform(0.5, 1.0)

    def reset(self) -> None:
        """Forget the failures: something went well."""
        self.failures = 0


@dataclass(frozen=True)
class Profile:
    """How much a wake-up costs: polls no closer than `min_poll_s`; what is due within `slack` (a
    share of the poll interval) is done in one wake-up; news wait `coalesce_s` for more of them."""

    min_poll_s: float = 0.0
    slack: float = 0.1
    coalesce_s: float = COALESCE_S


PROFILES = {"standard": Profile(), "battery": Profile(BATTERY_INTERVAL_S, 0.5, 20.0)}


@dataclass
class Schedule:
    """When the next poll, check-in and piece of work are due.

    `not_before` holds check-ins back that news would bring forward: the server asked for it, or it
    cannot be reached. `stretch_s` is the poll interval while a push channel lives, 0 while none
    does.
    """

    poll_s: float
    check_in_s: float
    chance: random.Random = field(default_factory=random.Random)
    profile: Profile = field(default_factory=Profile)
    next_poll: float = NEVER
    next_check_in: float = 0.0
    next_work: float = NEVER
    not_before: float = 0.0
    stretch_s: float = 0.0
    _called: bool = False
    _looks_again: bool = False
    _last_call: float = -NEVER
    _call_gap_s: float = CALL_GAP_S

    def __post_init__(self) -> None:
        self.ask(poll_s=self.poll_s, check_in_s=self.check_in_s)
        self.poll_backoff = Backoff(self.chance)
        self.check_in_backoff = Backoff(self.chance)
        self.work_backoff = Backoff(self.chance)
        self.token_backoff = Backoff(self.chance)

    def ask(self, *, poll_s: float, check_in_s: float) -> None:
        """Take the server's wishes, as far as this device's profile goes along."""
        self.poll_s = max(poll_s, self.profile.min_poll_s)
        self.check_in_s = max(check_in_s, self.profile.min_poll_s)

    def gather(self, now: float) -> None:
        """Being awake for one thing, bring forward what would wake the device again soon.

        A device that slept through a whole interval was suspended, and so, at a site whose power
        comes back, were its neighbours: they come in turn.
        """
        due = min(self.next_poll, self.next_check_in)
        if now < due:
            return
        if now - due > self.poll_s:
            soon = now + self._soon()
            self.next_poll = soon if self.next_poll < NEVER else NEVER
            self.next_check_in = max(soon, self.not_before)
            return
        ends = now + self.poll_s * self.profile.slack
        if self.next_check_in <= ends and self.not_before <= now:
            self.next_check_in = min(self.next_check_in, now)
        if self.next_poll <= ends:
            self.next_poll = min(self.next_poll, now)

    def _soon(self) -> float:
        return self.chance.uniform(0, min(self.poll_s / 10, 10.0))

    def spread(self, seconds: float) -> float:
        """Return an interval with its jitter, a tenth up or down."""
        return seconds * self.chance.uniform(0.9, 1.1)

    def started(self, now: float) -> None:
        """Come soon after a start, but not in step with the rest of the fleet."""
        self.next_check_in = now + self._soon()

    def polled(self, now: float, *, changed: bool = False) -> None:
        """A poll was answered, with a directive if `changed`."""
        self.poll_backoff.reset()
        self.token_backoff.reset()
        self.next_poll = now + self.spread(max(self.poll_s, self.stretch_s))
        called, again = self._called, self._looks_again
        self._called = self._looks_again = False
        if called or again:
            self._last_call = now
        if changed:
            self._call_gap_s = CALL_GAP_S
        elif called:
            # the process that answered may not know yet what the one that called knows
            self._call_gap_s = min(self._call_gap_s * 2, LAST_CALL_GAP_S)
            self._looks_again = True
            self.next_poll = min(self.next_poll, now + max(self._call_gap_s, SECOND_LOOK_S))

    def poll_failed(self, now: float, after_s: float) -> None:
        """A poll was not answered, or with a request to come later than `after_s`."""
        self._called = self._looks_again = False
        wait = max(self.poll_backoff.next_s(), after_s)
        self.next_poll = now + max(wait, self.spread(self.poll_s))

    # --- being called (docs/push.md)

    def called(self, now: float, within_s: float) -> None:
        """Somebody says that there is something: poll at some moment within that time.

        Never closer to the last call's poll than a gap, which doubles with each call that was for
        nothing: whoever forges calls by the thousand gets a poll a minute. A server that asked for
        patience gets it.
        """
        if self.next_poll == NEVER or self.poll_backoff.failures:
            return
        self._called = True
        at = max(now + self.chance.uniform(0.0, within_s), self._last_call + self._call_gap_s)
        self.next_poll = min(self.next_poll, at)

    def stretched(self, poll_s: float) -> None:
        """A push channel lives: poll this seldom from now on, if that is seldom enough."""
        self.stretch_s = poll_s

    def shrunk(self, now: float) -> None:
        """The push channel is dead: poll as often as without one."""
        self.stretch_s = 0.0
        if self.next_poll < NEVER:
            self.next_poll = min(self.next_poll, now + self.spread(self.poll_s))

    def checked_in(self, now: float, *, more: bool) -> None:
        """A report was stored; `more` events wait."""
        self.check_in_backoff.reset()
        self.not_before = now
        interval = self.spread(self.check_in_s)
        self.next_check_in = now if more else now + interval
        if self.next_poll == NEVER:
            self.next_poll = now

    def check_in_failed(self, now: float, after_s: float = 0.0) -> None:
        """A report was not taken, or with a request to come later than `after_s`."""
        self.next_check_in = now + max(self.check_in_backoff.next_s(), after_s)
        self.not_before = self.next_check_in

    def news(self, now: float) -> None:
        """Something happened that the server should hear of soon."""
        soon = max(now + self.profile.coalesce_s, self.not_before)
        self.next_check_in = min(self.next_check_in, soon)

    def need_token(self, now: float) -> None:
        """The token is used up: check in for another, and poll after that."""
        self.next_check_in = min(self.next_check_in, max(now, self.not_before))
        self.next_poll = NEVER

    def token_refused(self, now: float) -> None:
        """A token was refused that has been of no use yet: check in for another, later each time.

        Hosts that do not know each other's tokens would have a device ask without a pause.
        """
        self.not_before = max(self.not_before, now + self.token_backoff.next_s())
        self.next_check_in, self.next_poll = self.not_before, NEVER

    def work_at(self, when: float) -> None:
        """Have work done at `when` or before."""
        self.next_work = min(self.next_work, when)

    def work_failed(self, now: float, after_s: float = 0.0) -> None:
        """Work met a "no" that may pass, or its process died; `after_s`: the server named a time,
        which holds for others too, so this device comes a little later by chance."""
        if after_s:
            self.work_at(now + after_s * self.chance.uniform(1.0, 1.5))
        else:
            self.work_at(now + self.work_backoff.next_s())

    def next_due(self, *, working: bool) -> float:
        """Return when the next thing is due; while work is being done, no other can begin."""
        work = NEVER if working else self.next_work
        return min(self.next_poll, self.next_check_in, work)
