"""Each state as a word, an icon and a tone. Colour alone never says anything."""

from __future__ import annotations

from typing import NamedTuple


def N_(text: str) -> str:  # gettext's own name for "mark, do not translate yet"
    return text


WAVE_NAMES = (N_("canary"), N_("first"), N_("everyone"))
"""What waves are called where nobody named them: by themselves, and in the built-in policies."""


class StateSign(NamedTuple):
    """How a state is shown. `tone` is a class of the style sheet: good, bad, warn, busy, calm."""

    word: str
    icon: str
    tone: str


SIGNS: dict[str, StateSign] = {
    # rollouts
    "draft": StateSign(N_("draft"), "pencil", "calm"),
    "awaiting_approval": StateSign(N_("awaiting approval"), "hand", "warn"),
    "scheduled": StateSign(N_("scheduled"), "clock", "calm"),
    "running": StateSign(N_("running"), "play", "busy"),
    "paused": StateSign(N_("paused"), "pause", "warn"),
    "rolling_back": StateSign(N_("rolling back"), "back", "bad"),
    "rolled_back": StateSign(N_("rolled back"), "back", "bad"),
    "completed": StateSign(N_("completed"), "check", "good"),
    "aborted": StateSign(N_("aborted"), "stop", "warn"),
    # experiments
    "stopped": StateSign(N_("stopped"), "stop", "warn"),
    "closing": StateSign(N_("ending"), "clock", "busy"),
    "declined": StateSign(N_("declined"), "hand", "calm"),
    # waves
    "not open": StateSign(N_("not open"), "dots", "calm"),
    "open": StateSign(N_("open"), "play", "busy"),
    "closed": StateSign(N_("done"), "check", "good"),
    # verdicts
    "PASS": StateSign(N_("pass"), "check", "good"),
    "WAIT": StateSign(N_("wait"), "clock", "busy"),
    "FAIL": StateSign(N_("fail"), "cross", "bad"),
    "INCONCLUSIVE": StateSign(N_("inconclusive"), "question", "warn"),
    # devices
    "online": StateSign(N_("online"), "check", "good"),
    "silent": StateSign(N_("silent"), "moon", "warn"),
    "never": StateSign(N_("never seen"), "question", "calm"),
    "failing": StateSign(N_("failing"), "cross", "bad"),
    "refusing": StateSign(N_("refuses its orders"), "cross", "bad"),
    "conflict": StateSign(N_("two machines"), "warn", "bad"),
    "drifting": StateSign(N_("drifting"), "warn", "warn"),
    "drifted": StateSign(N_("drifted"), "warn", "warn"),
    "pending": StateSign(N_("pending"), "hand", "warn"),
    "enrolled": StateSign(N_("enrolled"), "check", "good"),
    "revoked": StateSign(N_("revoked"), "cross", "bad"),
    "decommissioned": StateSign(N_("decommissioned"), "stop", "calm"),
    # models on devices, outcomes of rollouts
    "idle": StateSign(N_("idle"), "dots", "calm"),
    "fetching": StateSign(N_("fetching"), "down", "busy"),
    "verifying": StateSign(N_("verifying"), "search", "busy"),
    "staged": StateSign(N_("staged"), "box", "busy"),
    "testing": StateSign(N_("testing"), "flask", "busy"),
    "shadow_leased": StateSign(N_("may try in shadow"), "down", "busy"),
    "shadowing": StateSign(N_("in shadow"), "eye", "good"),
    "switching": StateSign(N_("switching"), "swap", "busy"),
    "switched": StateSign(N_("on probation"), "eye", "busy"),
    "probation": StateSign(N_("on probation"), "eye", "busy"),
    "healthy": StateSign(N_("healthy"), "check", "good"),
    "failed": StateSign(N_("failed"), "cross", "bad"),
    "returned": StateSign(N_("taken back"), "back", "calm"),
    "leased": StateSign(N_("may update"), "down", "busy"),
    "expired": StateSign(N_("did not update"), "dots", "calm"),
    # versions
    "offered": StateSign(N_("offered"), "check", "good"),
    "yanked": StateSign(N_("yanked"), "cross", "bad"),
    "denied": StateSign(N_("denied"), "cross", "bad"),
    "purged": StateSign(N_("removed"), "cross", "bad"),
    "pruned": StateSign(N_("pruned"), "dots", "calm"),
    # accounts
    "active": StateSign(N_("active"), "check", "good"),
    "disabled": StateSign(N_("disabled"), "stop", "calm"),
    "unused": StateSign(N_("not used yet"), "clock", "busy"),
    "used": StateSign(N_("used"), "check", "calm"),
    # webhooks
    "waiting": StateSign(N_("waiting"), "clock", "busy"),
    "delivered": StateSign(N_("delivered"), "check", "good"),
    "given_up": StateSign(N_("given up"), "cross", "bad"),
}


WORDS: dict[str, str] = {
    # decisions about rollouts, beyond those that are called like a state
    "create": N_("created"),
    "approve": N_("approved"),
    "start": N_("started"),
    "open_wave": N_("wave opened"),
    "next": N_("wave opened manually"),
    "pause": N_("paused"),
    "resume": N_("resumed"),
    "retry": N_("failed devices retried"),
    "roll_back": N_("rolling back"),
    "complete": N_("completed"),
    "abort": N_("aborted"),
    # what devices say happened
    "accepted": N_("directive accepted"),
    "refused": N_("directive refused"),
    "tested": N_("self-test passed"),
    "held": N_("held back"),
    # roles
    "viewer": N_("viewer"),
    "publisher": N_("publisher"),
    "operator": N_("operator"),
    "admin": N_("admin"),
    # when a gate fails
    "rollback": N_("roll back"),
}


def word_of(name: str) -> str:
    """The word for a state, a decision, an event or a role; an unknown one is its own."""
    known = SIGNS.get(name)
    return known.word if known else WORDS.get(name, name.replace("_", " "))


def sign(state: str) -> StateSign:
    """How a state is shown; an unknown one shows its own word."""
    return SIGNS.get(state) or StateSign(state.replace("_", " "), "dots", "calm")
