"""Each state as a word, an icon and a tone. Colour alone never says anything."""

from __future__ import annotations

from typing import NamedTuple


def N_(text: str) -> str:  # gettext's own name for "mark, do not translate yet"
    return text


class Sign(NamedTuple):
    """How a state is shown. `tone` is a class of the style sheet: good, bad, warn, busy, calm."""

    word: str
    icon: str
    tone: str


SIGNS: dict[str, Sign] = {
    # rollouts
    "draft": Sign(N_("draft"), "pencil", "calm"),
    "awaiting_approval": Sign(N_("awaiting approval"), "hand", "warn"),
    "scheduled": Sign(N_("scheduled"), "clock", "calm"),
    "running": Sign(N_("running"), "play", "busy"),
    "paused": Sign(N_("paused"), "pause", "warn"),
    "rolling_back": Sign(N_("rolling back"), "back", "bad"),
    "rolled_back": Sign(N_("rolled back"), "back", "bad"),
    "completed": Sign(N_("completed"), "check", "good"),
    "aborted": Sign(N_("aborted"), "stop", "warn"),
    # waves
    "not open": Sign(N_("not open"), "dots", "calm"),
    "open": Sign(N_("open"), "play", "busy"),
    "closed": Sign(N_("done"), "check", "good"),
    # verdicts
    "PASS": Sign(N_("pass"), "check", "good"),
    "WAIT": Sign(N_("wait"), "clock", "busy"),
    "FAIL": Sign(N_("fail"), "cross", "bad"),
    "INCONCLUSIVE": Sign(N_("inconclusive"), "question", "warn"),
    # devices
    "online": Sign(N_("online"), "check", "good"),
    "silent": Sign(N_("silent"), "moon", "warn"),
    "never": Sign(N_("never seen"), "question", "calm"),
    "failing": Sign(N_("failing"), "cross", "bad"),
    "refusing": Sign(N_("refuses its orders"), "cross", "bad"),
    "conflict": Sign(N_("two machines"), "warn", "bad"),
    "pending": Sign(N_("pending"), "hand", "warn"),
    "enrolled": Sign(N_("enrolled"), "check", "good"),
    "revoked": Sign(N_("revoked"), "cross", "bad"),
    "decommissioned": Sign(N_("decommissioned"), "stop", "calm"),
    # models on devices, outcomes of rollouts
    "idle": Sign(N_("idle"), "dots", "calm"),
    "fetching": Sign(N_("fetching"), "down", "busy"),
    "verifying": Sign(N_("verifying"), "search", "busy"),
    "staged": Sign(N_("staged"), "box", "busy"),
    "testing": Sign(N_("testing"), "flask", "busy"),
    "switching": Sign(N_("switching"), "swap", "busy"),
    "switched": Sign(N_("on probation"), "eye", "busy"),
    "probation": Sign(N_("on probation"), "eye", "busy"),
    "healthy": Sign(N_("healthy"), "check", "good"),
    "failed": Sign(N_("failed"), "cross", "bad"),
    "returned": Sign(N_("taken back"), "back", "calm"),
    "leased": Sign(N_("may update"), "down", "busy"),
    "expired": Sign(N_("did not update"), "dots", "calm"),
    # versions
    "offered": Sign(N_("offered"), "check", "good"),
    "yanked": Sign(N_("yanked"), "cross", "bad"),
    "denied": Sign(N_("denied"), "cross", "bad"),
    "purged": Sign(N_("removed"), "cross", "bad"),
    "pruned": Sign(N_("pruned"), "dots", "calm"),
    # accounts
    "active": Sign(N_("active"), "check", "good"),
    "disabled": Sign(N_("disabled"), "stop", "calm"),
    "unused": Sign(N_("not used yet"), "clock", "busy"),
    "used": Sign(N_("used"), "check", "calm"),
    # webhooks
    "waiting": Sign(N_("waiting"), "clock", "busy"),
    "delivered": Sign(N_("delivered"), "check", "good"),
    "given_up": Sign(N_("given up"), "cross", "bad"),
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


def sign(state: str) -> Sign:
    """How a state is shown; an unknown one shows its own word."""
    return SIGNS.get(state) or Sign(state.replace("_", " "), "dots", "calm")
