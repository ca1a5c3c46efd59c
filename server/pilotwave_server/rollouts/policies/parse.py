"""Read what a person wrote as a policy: every key known, every value of its kind and in its range.

Here is the grammar of the whole and of its waves; `gate_text.py` has the gates', `limits_text.py`
what bounds devices. Reading text is `yaml_text.py`'s. What the server wrote of a policy
(`stored.py`) is a policy too.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from pilotwave_protocol.names import check_device, check_group, check_model
from pilotwave_server.fields import SLUG
from pilotwave_server.groups.selector import BadSelector
from pilotwave_server.groups.selector import parse as parse_selector
from pilotwave_server.rollouts.policies.document import Canary, OnFailure, Policy, Wave
from pilotwave_server.rollouts.policies.faults import Faults, Wrong
from pilotwave_server.rollouts.policies.gate_text import read_gates
from pilotwave_server.rollouts.policies.kinds import (
    flag,
    matching,
    named,
    percent,
    text,
    whole,
    word,
)
from pilotwave_server.rollouts.policies.limits_text import (
    read_conditions,
    read_deadlines,
    read_pace,
    read_windows,
)
from pilotwave_server.rollouts.policies.section import Section

MAX_WAVES = 100
MAX_CANARIES = 1000
MOST_DEVICES = 100_000_000
MAX_TOGETHER = 16
_KEYS = (
    "name",
    "description",
    "waves",
    "on_failure",
    "pace",
    "windows",
    "conditions",
    "deadlines",
    "approval",
    "together",
)
_SIZES = ("canary", "count", "percent")
_NAME = matching(
    rf"(?=.{{1,64}}$){SLUG[1:-1]}",
    "a name of small letters and digits, joined by single '.', '_' or '-', at most 64 characters",
)


def parse_policy(
    data: Any, *, name: str | None = None, lines: Mapping[str, int] | None = None
) -> Policy:
    """Return the policy that `data` (plain JSON values) describes. PolicyInvalid.

    `name` is the name that it is to have; without it, the text has to say one. `lines` gives the
    line of each path.
    """
    faults = Faults(lines)
    top = Section(faults, data, "", keys=_KEYS)
    policy = Policy(
        name=_name(top, name),
        description=top.take("description", text(512, empty=True), ""),
        waves=_waves(top),
        on_failure=OnFailure(
            top.take("on_failure", word(*map(str, OnFailure)), str(OnFailure.ROLLBACK))
        ),
        pace=read_pace(top),
        windows=read_windows(top),
        conditions=read_conditions(top),
        deadlines=read_deadlines(top),
        approval=top.take("approval", flag, False),
        together=top.list_of("together", named(check_model), MAX_TOGETHER),
    )
    faults.check()
    return policy


def _name(top: Section, wanted: str | None) -> str:
    if wanted is None:
        return top.need("name", _NAME, "")
    found = top.take("name", _NAME, wanted)
    if found != wanted:
        top.faults.add("name", f"expected `{wanted}`, as it is asked for; got `{found}`")
    return wanted


def _waves(top: Section) -> tuple[Wave, ...]:
    if top.value.get("waves", []) == []:
        top.faults.add("waves", "expected at least one wave")
    waves: list[Wave] = []
    paths: list[str] = []
    for item, path in top.items("waves", MAX_WAVES):
        waves.append(_wave(top.faults, item, path))
        paths.append(path)
    if waves:
        _check_order(top.faults, waves, paths)
    return tuple(waves)


def _wave(faults: Faults, value: Any, path: str) -> Wave:
    keys = ("name", *_SIZES, "min_sample", "manual", "gates")
    part = Section(faults, value, path, keys=keys, durations=("soak",))
    given = [key for key in _SIZES if part.has(key)]
    if len(given) != 1:
        came = " and ".join(given) or "none"
        faults.add(path, f"expected exactly one of canary, count, percent; got {came}")
    size = part.take("percent", percent(0.000001, 100), None)
    count = part.take("count", whole(1, MOST_DEVICES), None)
    return Wave(
        name=part.take("name", text(64), _title(count, size)),
        canary=_canary(part) if part.has("canary") else None,
        count=count,
        percent=size,
        soak_s=part.duration("soak", 0),
        min_sample=part.take("min_sample", whole(1, MOST_DEVICES), 1),
        manual=part.take("manual", flag, False),
        gates=read_gates(part),
    )


def _title(count: int | None, size: float | None) -> str:
    if count is not None:
        return f"{count} devices"
    return f"{size:g}%" if size is not None else "canary"


def _canary(wave: Section) -> Canary:
    keys = ("devices", "selector", "group")
    path = wave.at("canary")
    part = Section(wave.faults, wave.value["canary"], path, keys=keys)
    canary = Canary(
        devices=part.list_of("devices", named(check_device), MAX_CANARIES),
        selector=part.take("selector", _selector, None),
        group=part.take("group", named(check_group), None),
    )
    # an empty list beside another kind is how the server writes that there is none
    given = [key for key in keys if part.value.get(key)]
    if len(given) != 1 and isinstance(wave.value["canary"], dict):
        came = " and ".join(given) or "none"
        part.faults.add(path, f"expected exactly one of {', '.join(keys)}; got {came}")
    return canary


def _selector(value: Any) -> str:
    found = text(4096)(value)
    try:
        parse_selector(found)
    except BadSelector as error:
        raise Wrong(str(error)) from None
    return found


def _check_order(faults: Faults, waves: list[Wave], paths: list[str]) -> None:
    if waves[-1].percent != 100:
        faults.add(paths[-1], "expected the last wave to end at 100%: `percent: 100%`")
    for key in ("percent", "count"):
        sized = [(getattr(w, key), p) for w, p in zip(waves, paths, strict=True) if getattr(w, key)]
        for (before, _), (after, path) in pairwise(sized):
            if after <= before:
                faults.add(
                    f"{path}.{key}",
                    f"expected more than the {before:g} of the wave before, for waves only add "
                    f"devices; got {after:g}",
                )
    names: set[str] = set()
    for wave, path in zip(waves, paths, strict=True):
        if wave.name in names:
            faults.add(f"{path}.name", f"expected names that differ; `{wave.name}` is there twice")
        names.add(wave.name)
