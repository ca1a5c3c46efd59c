"""Sentences that the server says and keeps in English, in the language of whoever reads the page.

`catalogue/` has each as a pattern: what is filled in is found again by its place, whose name says
what it takes (a digit behind the name keeps two places apart). A place that `_TAKES` does not name
takes one word. A place of `_KNOWN` takes only what is a sentence itself; one of `_PERHAPS` takes
anything, and says it in the reader's language where it can. A sentence that no pattern takes is
shown as it is, marked as English.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cache
from itertools import islice

from markupsafe import Markup, escape

from pilotwave_server.dashboard.catalogue import (
    attention,
    devices,
    errors,
    gates,
    learning,
    policies,
    rollouts,
    selectors,
    typed,
)
from pilotwave_server.dashboard.catalogue.reasons import REASONS
from pilotwave_server.dashboard.words import N_, word_of

SENTENCES: tuple[str, ...] = (
    *attention.SENTENCES,
    *gates.SENTENCES,
    *rollouts.SENTENCES,
    *devices.SENTENCES,
    *policies.SENTENCES,
    *selectors.SENTENCES,
    *errors.SENTENCES,
    *learning.SENTENCES,
    *typed.SENTENCES,
)
# these would take others too
_AT_LAST = (
    N_("%(what)s, in shadow"),
    N_("%(devices)s"),
    N_("%(gate)s, %(slice)s: %(said)s"),
    N_("%(gate)s: %(said)s"),
)
_JOINED = {
    ". ": N_("%(first)s. %(text)s"),
    "; ": N_("%(first)s; %(text)s"),
    ": ": N_("%(first)s: %(text)s"),
}
LONGEST = 2000
_DEEP = 6
_PLACES_TRIED = 6
_NUMBER = r"[\d,]+"
_TAKES = {
    **dict.fromkeys(("text", "said"), ".+"),
    **dict.fromkeys(("shown", "list", "names", "slice", "selector", "command", "what"), ".+?"),
    **dict.fromkeys(("name", "gate"), "[^;]{1,64}?"),
    "reasons": "[^()]+",
    "span": r"[\w. ]+?",
    "at": r"\d{4}-\d\d-\d\d \d\d:\d\d(?::\d\d)? UTC",
    "way": "better|worse",
    "than": "than before|than usual",
    "state": r"[a-z]+(?: [a-z]+){0,2}",
}
# a number with its noun, of which the number is filled in
_COUNTED = {
    "devices": "devices?",
    "windows": "windows?",
    "calls": "calls?",
    "have": "(?:device has|devices have)",
    "keep": "(?:device keeps|devices keep)",
    "matching": "(?:device matches|devices match)",
}
_KNOWN = {"said", "what"}
_PERHAPS = {"text", "shown", "way", "than"}
_PLACE = re.compile(r"%\\\((\w+)\\\)s")

Gettext = Callable[[str], str]


def translated(sentence: str, gettext: Gettext, *, deep: int = _DEEP) -> str | None:
    """The sentence in the language of `gettext`, or None where no pattern takes it."""
    if len(sentence) > LONGEST or not deep:
        return None
    return (
        _taken(SENTENCES, sentence, gettext, deep)
        or _joined(sentence, gettext, deep)
        or _taken(_AT_LAST, sentence, gettext, deep)
    )


def _taken(msgids: tuple[str, ...], sentence: str, gettext: Gettext, deep: int) -> str | None:
    """The sentence by the first pattern that takes it."""
    for msgid, pattern in _patterns(msgids):
        found = pattern.fullmatch(sentence)
        values = None if found is None else _filled(found.groupdict(), gettext, deep - 1)
        if values is not None:
            told = gettext(msgid)
            return told % values if values else told.replace("%%", "%")
    return None


def _filled(values: dict[str, str], gettext: Gettext, deep: int) -> dict[str, str] | None:
    """What is filled in, in the reader's language; None where it should be known and is not."""
    found = {}
    for place, value in values.items():
        kind = place.rstrip("0123456789")
        told = _value(kind, value, gettext, deep)
        if told is None and kind in _KNOWN:
            return None
        found[place] = value if told is None else told
    return found


def _value(kind: str, value: str, gettext: Gettext, deep: int) -> str | None:
    if kind == "state":
        return gettext(word_of(value.replace(" ", "_")))
    if kind in ("list", "reasons"):
        parts = value.split(", ")
        return gettext(N_(", ")).join(_part(part, gettext, deep) for part in parts)
    if kind in _KNOWN or kind in _PERHAPS:
        return translated(value, gettext, deep=deep)
    return None


def _part(part: str, gettext: Gettext, deep: int) -> str:
    """One part of a list: a number with a reason, as `2 selftest_load`, or a sentence."""
    number, _, reason = part.partition(" ")
    reason = reason.removesuffix(" after the switch")
    if number.isdigit() and reason in REASONS:
        return f"{number} {gettext(REASONS[reason])}"
    return translated(part, gettext, deep=deep) or part


def _joined(sentence: str, gettext: Gettext, deep: int) -> str | None:
    """Two sentences, of which the first is known; what follows a semicolon must be known too."""
    for stop, msgid in _JOINED.items():
        for found in islice(re.finditer(re.escape(stop), sentence), _PLACES_TRIED):
            head = translated(sentence[: found.start()], gettext, deep=deep - 1)
            if head is None:
                continue
            rest = sentence[found.end() :]
            tail = translated(rest, gettext, deep=deep - 1)
            if tail is not None or stop != "; ":
                return gettext(msgid) % {"first": head, "text": rest if tail is None else tail}
    return None


@cache
def _patterns(msgids: tuple[str, ...]) -> tuple[tuple[str, re.Pattern[str]], ...]:
    return tuple(_compiled(msgids))


def _compiled(msgids: tuple[str, ...]) -> Iterator[tuple[str, re.Pattern[str]]]:
    for msgid in msgids:
        plain = re.escape(msgid.replace("%%", "%"))
        yield msgid, re.compile(_PLACE.sub(_place, plain), re.DOTALL)


def _place(found: re.Match[str]) -> str:
    kind = found[1].rstrip("0123456789")
    if kind in _COUNTED:
        return f"(?P<{found[1]}>{_NUMBER}) {_COUNTED[kind]}"
    return f"(?P<{found[1]}>{_TAKES.get(kind, '[^ ]+')})"


def shown(sentence: str | None, gettext: Gettext, language: str) -> Markup:
    """The sentence as the page shows it: translated, or marked as English."""
    if language == "en":
        return escape(sentence or "")
    if sentence:
        told = gettext(sentence)
        known = translated(sentence, gettext) if told == sentence else told
        if known is not None:
            return escape(known)
    return Markup('<span lang="en">{}</span>').format(sentence or "")


def because(detail: str | None, reason: str | None, gettext: Gettext, language: str) -> Markup:
    """Why a device or the server says no: its own sentence, and in another language than English
    the words for the reason before it, where that sentence is not known."""
    words = REASONS.get(reason or "", reason or "")
    if language == "en":
        return shown(detail or words, gettext, language)
    known = translated(detail, gettext) if detail else gettext(words)
    if known is not None:
        return escape(known)
    return Markup('{} <span lang="en">{}</span>').format(gettext(words), detail)
