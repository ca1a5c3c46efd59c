"""Sentences that the server says and keeps in English, in the language of whoever reads the page.

The catalogue has each as a pattern: what is filled in is found again by its place. `%(text)s` takes
anything, and may itself be such a sentence, or two; `%(reasons)s` takes what stands in brackets,
every other place one word. A sentence that no pattern takes is shown as it is, marked as English.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cache

from markupsafe import Markup, escape

from pilotwave_server.dashboard.words import N_

SENTENCES: tuple[str, ...] = (
    # what needs attention
    N_("1 device is waiting to be accepted"),
    N_("%(count)s devices are waiting to be accepted"),
    N_("compare the key that it shows before you accept it"),
    N_("1 key is used by two machines"),
    N_("%(count)s keys are used by two machines"),
    N_("1 device refuses its orders"),
    N_("%(count)s devices refuse their orders"),
    N_("the page of each device says why, and what to do"),
    N_("1 device is failing"),
    N_("%(count)s devices are failing"),
    N_("a version failed or went back"),
    N_("1 device is silent"),
    N_("%(count)s devices are silent"),
    N_("three check-ins were missed"),
    N_("restored server"),
    N_("%(role)s expires in %(days)s days"),
    N_("run `%(text)s`"),
    # what gates say
    N_("no device has finished yet; %(text)s"),
    N_("1 device is still installing"),
    N_("%(count)s devices are still installing"),
    N_("%(bad)s of 1 device failed; the limit is %(limit)s. %(text)s"),
    N_("%(bad)s of %(all)s devices failed; the limit is %(limit)s. %(text)s"),
    N_("%(bad)s of 1 device failed (%(reasons)s); the limit is %(limit)s. %(text)s"),
    N_("%(bad)s of %(all)s devices failed (%(reasons)s); the limit is %(limit)s. %(text)s"),
    N_("1 device is healthy: too few to tell"),
    N_("%(count)s devices are healthy: too few to tell"),
    N_("1 device is healthy: the failure rate is below %(bound)s"),
    N_("%(count)s devices are healthy: the failure rate is below %(bound)s"),
    N_("This may still be chance; %(text)s"),
    N_("This may be chance, and no device is still installing that could tell"),
    N_("A good version would be stopped by chance in fewer than 1 in %(count)s rollouts"),
    # why a rollout waits or went on
    N_("wave %(number)s (%(name)s) opens: %(text)s"),
    N_("install: %(text)s"),
    N_("rolled back: %(text)s"),
    N_("paused: %(text)s"),
    N_("paused for a person to decide: %(text)s"),
    # why a device runs what it runs
    N_("%(device)s keeps its %(model)s: no pin, rollout or baseline names a version"),
    N_("%(device)s keeps its %(model)s: no version that it is asked to run may be offered"),
    N_("%(device)s should run %(model)s %(version)s (variant %(variant)s), because %(text)s"),
    N_("%(device)s is told to remove %(model)s: an operator ordered it"),
    N_("an operator pinned it"),
    N_("it is the baseline of group %(group)s"),
    N_("rollout %(rollout)s brings it to group %(group)s"),
    N_("The device says: %(text)s"),
    N_("an operator pinned it (%(version)s): chosen, variant %(variant)s"),
    N_("an operator pinned it (%(version)s): skipped, %(text)s"),
    N_("it is the baseline of group %(group)s (%(version)s): chosen, variant %(variant)s"),
    N_("it is the baseline of group %(group)s (%(version)s): skipped, %(text)s"),
    N_(
        "rollout %(rollout)s brings it to group %(group)s (%(version)s): chosen, "
        "variant %(variant)s"
    ),
    N_("rollout %(rollout)s brings it to group %(group)s (%(version)s): skipped, %(text)s"),
    N_("%(rollout)s is paused, and this device had not started"),
    N_("%(rollout)s limits how many devices change at once; this one waits its turn"),
    N_("it may try again; %(text)s"),
    N_("it was let in before and did not begin in time; %(text)s"),
    N_("it was let in before and left the version during probation; %(text)s"),
    N_("no wave of %(rollout)s is open yet; this device is due at %(place)s %%"),
    N_(
        "%(rollout)s has opened wave %(wave)s, up to %(reached)s %% of the group; "
        "this device is due when the rollout reaches %(place)s %%"
    ),
    N_(
        "%(version)s failed on %(device)s, so %(rollout)s offers it no more; "
        "to let it try again: `%(text)s`"
    ),
    N_(
        "%(version)s failed on %(device)s (%(text)s), so %(rollout)s offers it no more; "
        "to let it try again: `pilotwave devices retry %(device2)s --model %(model)s`"
    ),
    N_("%(device)s has been silent since %(time)s; it takes new orders when it is back"),
    N_("%(device)s has not checked in yet"),
    N_("%(model)s %(version)s is not in the registry"),
    N_("%(model)s %(version)s was yanked by its publisher: %(text)s"),
    N_("%(model)s %(version)s was denied by an operator: %(text)s"),
    N_(
        "%(model)s %(version)s (release counter %(counter)s) is below the floor %(floor)s "
        "that its publisher set"
    ),
    # what to do about a device that refuses its orders
    N_("set this device's clock"),
    N_("this device's clock says %(time)s; set it"),
    N_("free room on its disk"),
    N_("let its agent write to its data folder"),
    N_("have it run fewer models"),
    N_("it was enrolled with another fleet, name or root of trust: enrol it anew"),
    N_("look at what lies between it and the server: a proxy, a portal, a slow link"),
    N_("look at `pilotwave devices events %(device)s`, and at its agent's log there"),
    N_("renew what expired (`pilotwave status` names it); if nothing did, set this device's clock"),
    N_(
        "this server is behind what the device has seen, as after a restore from a backup: "
        "`pilotwave status` says how far and what to do"
    ),
)
PAIR = N_("%(first)s. %(text)s")
LONGEST = 2000
_DEEP = 4
_TAKES = {"text": ".+", "reasons": "[^()]+"}
_PLACE = re.compile(r"%\\\((\w+)\\\)s")


def translated(sentence: str, gettext: Callable[[str], str], *, deep: int = _DEEP) -> str | None:
    """The sentence in the language of `gettext`, or None where no pattern takes it."""
    if len(sentence) > LONGEST or not deep:
        return None
    for msgid, pattern in _patterns():
        found = pattern.fullmatch(sentence)
        if found is not None:
            values = found.groupdict()
            if "text" in values:
                inner = translated(values["text"], gettext, deep=deep - 1)
                values["text"] = values["text"] if inner is None else inner
            told = gettext(msgid)
            return told % values if values else told.replace("%%", "%")
    return _pair(sentence, gettext, deep)


def _pair(sentence: str, gettext: Callable[[str], str], deep: int) -> str | None:
    """Two sentences, of which the first is known."""
    first, stop, rest = sentence.partition(". ")
    head = translated(first, gettext, deep=deep - 1) if stop else None
    if head is None:
        return None
    tail = translated(rest, gettext, deep=deep - 1)
    return gettext(PAIR) % {"first": head, "text": rest if tail is None else tail}


@cache
def _patterns() -> tuple[tuple[str, re.Pattern[str]], ...]:
    return tuple(_compiled())


def _compiled() -> Iterator[tuple[str, re.Pattern[str]]]:
    for msgid in SENTENCES:
        plain = re.escape(msgid.replace("%%", "%"))
        yield msgid, re.compile(_PLACE.sub(_place, plain), re.DOTALL)


def _place(found: re.Match[str]) -> str:
    return f"(?P<{found[1]}>{_TAKES.get(found[1], '[^ ]+')})"


def shown(sentence: str | None, gettext: Callable[[str], str], language: str) -> Markup:
    """The sentence as the page shows it: translated, or marked as English."""
    told = None if language == "en" else translated(sentence or "", gettext)
    if told is not None:
        return escape(told)
    return Markup('<span lang="en">{}</span>').format(sentence or "")
