"""The policies that are always there. A policy that is saved under such a name takes its place."""

from __future__ import annotations

from functools import cache

from pilotwave_server.rollouts.policies.parse import parse_policy
from pilotwave_server.rollouts.policies.policy import Policy
from pilotwave_server.rollouts.policies.yaml_text import read_text

_INSTALL = "{name: install, max_failure_rate: 5%}"
# what an improvement does too (answer otherwise now and then) must not stop it
_PAIRED = (
    "{disagreement: {at_most: 20%}}, {errors: {at_most: 0.1%}}, {latency: {min_effect: 25%}}, "
    "{score: {min_effect: 0.05}}, {memory: {at_most: 2}}"
)

TEXTS = {
    "careful": f"""\
name: careful
description: In shadow where devices can, then on one, then on 1, 10, 50 and 100 percent, with \
hours of soaking between.
waves:
  - name: shadow
    count: 20
    shadow: {{share: 10%, cpu: 10%, min_calls: 200, optional: true}}
    min_sample: 5
    soak: 1h
    gates: [{_INSTALL}, {_PAIRED}]
  - {{name: first, count: 1, soak: 1h, gates: [{_INSTALL}]}}
  - {{percent: 1%, min_sample: 5, soak: 4h, gates: [{_INSTALL}]}}
  - {{percent: 10%, min_sample: 20, soak: 12h, gates: [{_INSTALL}]}}
  - {{percent: 50%, min_sample: 50, soak: 12h, gates: [{_INSTALL}]}}
  - {{percent: 100%, gates: [{_INSTALL}]}}
on_failure: rollback
pace: {{min_available: 90%}}
deadlines: {{unreached: 14d}}
""",
    "standard": f"""\
name: standard
description: 5, 25 and 100 percent, with half an hour of soaking between.
waves:
  - {{percent: 5%, min_sample: 5, soak: 30m, gates: [{_INSTALL}]}}
  - {{percent: 25%, min_sample: 20, soak: 30m, gates: [{_INSTALL}]}}
  - {{percent: 100%, gates: [{_INSTALL}]}}
on_failure: rollback
deadlines: {{unreached: 7d}}
""",
    "everyone-now": f"""\
name: everyone-now
description: All devices at once, still taken back if too many fail.
waves:
  - {{name: everyone, percent: 100%, gates: [{_INSTALL}]}}
on_failure: rollback
deadlines: {{unreached: 1d}}
""",
    "night-only": f"""\
name: night-only
description: 10 and 100 percent, changing only from 1 to 5 at night by each device's own time.
waves:
  - {{percent: 10%, min_sample: 5, soak: 1d, gates: [{_INSTALL}]}}
  - {{percent: 100%, gates: [{_INSTALL}]}}
on_failure: rollback
windows: [{{cron: "0 1 * * *", duration: 4h, timezone: device}}]
deadlines: {{lease: 2d, unreached: 14d}}
""",
}


@cache
def builtin(name: str) -> Policy | None:
    """Return the built-in policy of that name, if there is one."""
    text = TEXTS.get(name)
    if text is None:
        return None
    data, lines = read_text(text)
    return parse_policy(data, name=name, lines=lines)
