"""Read what a person wrote as a policy: every key known, every value of its kind, all consistent.

The keys and kinds are `document.py`'s; here are the rules between them. Reading text is
`yaml_text.py`'s. What the server wrote of a policy (`stored.py`) is a policy too.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from pilotwave_server.rollouts.policies.document import Canary, MetricGate, Pace, Policy, Wave
from pilotwave_server.rollouts.policies.faults import Faults
from pilotwave_server.rollouts.policies.reader import Reader, Section


def parse_policy(
    data: Any, *, name: str | None = None, lines: Mapping[str, int] | None = None
) -> Policy:
    """Return the policy that `data` (plain JSON values) describes. PolicyInvalid.

    `name` is the name that it is to have; without it, the text has to say one. `lines` gives the
    line of each path.
    """
    faults = Faults(lines)
    if name is not None and isinstance(data, dict) and data.get("name") is None:
        data = {**data, "name": name}
    policy = Reader(faults, _RULES).mapping(Policy, data, "")
    if name is not None and policy.name not in {None, name}:
        faults.add("name", f"expected `{name}`, as it is asked for; got `{policy.name}`")
    faults.check()
    return policy


def _policy(part: Section) -> None:
    if part.given.get("waves", []) == []:
        part.add("waves", "expected at least one wave")
    waves = part.values.setdefault("waves", ())
    if waves and waves[-1].percent != 100:
        part.add(
            f"waves[{len(waves) - 1}]", "expected the last wave to end at 100%: `percent: 100%`"
        )
    for key in ("percent", "count"):
        sized = [(n, size) for n, w in enumerate(waves) if (size := getattr(w, key))]
        for (_, before), (n, after) in pairwise(sized):
            if after <= before:
                part.add(
                    f"waves[{n}].{key}",
                    f"expected more than the {before:g} of the wave before, for waves only add "
                    f"devices; got {after:g}",
                )
    _names_differ(part, "waves")


def _names_differ(part: Section, key: str) -> None:
    names: set[str] = set()
    for n, one in enumerate(part.values.get(key, ())):
        if one.name in names:
            part.add(f"{key}[{n}].name", f"expected names that differ; `{one.name}` is there twice")
        names.update([one.name] if one.name else [])


def _wave(part: Section) -> None:
    sizes = ("canary", "count", "percent")
    _one_of(part, sizes, [key for key in sizes if key in part.given])
    count, percent = part.values.get("count"), part.values.get("percent")
    title = f"{percent:g}%" if percent is not None else "canary"
    part.values.setdefault("name", title if count is None else f"{count} devices")
    _names_differ(part, "gates")


def _canary(part: Section) -> None:
    kinds = ("devices", "selector", "group")
    # an empty list beside another kind is how the server writes that there is none
    _one_of(part, kinds, [key for key in kinds if part.given.get(key)])


def _one_of(part: Section, keys: tuple[str, ...], given: list[str]) -> None:
    if len(given) != 1:
        came = " and ".join(given) or "none"
        part.add("", f"expected exactly one of {', '.join(keys)}; got {came}")


def _metric_gate(part: Section) -> None:
    metric, statistic = part.values.get("metric", ""), part.values.get("statistic", "p95")
    part.values.setdefault("name", f"{metric[:50]} {statistic}")


def _pace(part: Section) -> None:
    if part.given.get("ramp_factor", 2) != 2 and "ramp_start" not in part.given:
        part.add("ramp_factor", "expected `ramp_start` beside it")


_RULES = {Policy: _policy, Wave: _wave, Canary: _canary, MetricGate: _metric_gate, Pace: _pace}
