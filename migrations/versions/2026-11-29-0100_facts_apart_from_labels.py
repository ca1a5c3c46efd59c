"""Facts apart from labels: `arch=aarch64` asked a device's label, else its own fact; from now on a
label alone, and `fact.arch=aarch64` the fact. What is stored is rewritten so that nobody comes to
be in a group, or in a canary wave, who was not in it. Each change is listed for the operator.

For each key that a selector or a gate asks by:

1. no device and no enrolment code has a label of that key, and a device reports it as a fact, or
   every agent does: `key` becomes `fact.key`, which says what it said;
2. some device has it as a label, and some reports it as a fact: it cannot be told which was meant.
   The label counts. `key=x` is left, and selects fewer; `key!=x` and `!key` get `fact.key!=x` and
   `!fact.key` beside them, as they would select more by themselves;
3. else it stays, and says what it said.

A label whose key begins with `fact.` is called `x-fact.…` now, here and where it is asked by.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "facts_apart_from_labels"
down_revision = "bind_people_by_hand"
branch_labels = None
depends_on = None

FACT = "fact."
# What every agent says of itself, whether or not a device has said so yet.
REPORTED = re.compile(
    r"(arch|os|kernel|cpu_count|memory_mb|disk_free_mb|python|agent|timezone|temperature_c"
    r"|network\.metered|runtime\..*|accelerator\..*|cpu\..*)"
)
MAX_LENGTH, MAX_CONDITIONS = 4096, 64
NOBODY = "!nobody, nobody"
SHOWN = 10
TOKEN = re.compile(
    r"""\s+|"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|==|!=|>=|<=|[=<>!,()*]"""
    r"""|[^\s,()=!<>"'*][^\s,()=!<>"']*"""
)
json = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")


def table(name: str, *columns: str, **typed: Any) -> Any:
    return sa.table(
        name, *map(sa.column, columns), *(sa.column(key, kind) for key, kind in typed.items())
    )


devices = table("devices", "id", "name", labels=json, facts=json)
codes = table("enrolment_codes", "id", labels=json)
groups = table("groups", "id", "name", "selector")
policies = table("policies", "id", "name", "version", document=json)
rollouts = table("rollouts", "id", "state", document=json)
heard = table("rollout_devices", "rollout_id", "device_id", slices=json)
samples = table("rollout_samples", "id", "rollout_id", slices=json)
fleet = table("fleet_state", "revision", "fleet_revision")
notices = table("notices", "object", "sentence", at=sa.DateTime(timezone=True))


class Keys:
    """What the fleet knows of each key, asked once."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[bool, bool]] = {}

    def of(self, key: str) -> tuple[bool, bool]:
        """Whether it is somebody's label, and whether it is somebody's fact."""
        if key not in self._known:
            label = _anyone(devices, "labels", key) or _anyone(codes, "labels", key)
            self._known[key] = label, _anyone(devices, "facts", key)
        return self._known[key]

    def is_fact(self, key: str) -> bool:
        label, fact = self.of(key)
        return not label and (fact or REPORTED.fullmatch(key) is not None)

    def is_either(self, key: str) -> bool:
        return self.of(key) == (True, True)


def upgrade() -> None:
    keys = Keys()
    told = [*_groups(keys), *_policies(keys), *_rollouts(keys), *_labels()]
    if not told:
        return
    # a device that has other orders now takes them under a higher number only
    counted = {"revision": fleet.c.revision + 1, "fleet_revision": fleet.c.revision + 1}
    op.get_bind().execute(sa.update(fleet).values(**counted))
    now = datetime.now(timezone.utc)
    if op.get_bind().dialect.name == "sqlite":
        now = now.replace(tzinfo=None)
    op.bulk_insert(notices, [{"object": o, "sentence": s, "at": now} for o, s in told])


def downgrade() -> None:
    """A selector that names `fact.` says nothing to older code, and selects nobody there."""


def _groups(keys: Keys) -> Iterator[tuple[str, str]]:
    asked = sa.select(groups).where(groups.c.selector.is_not(None)).order_by(groups.c.id)
    for row in _all(asked):
        new = rewritten(row.selector, keys)
        if new != row.selector:
            _set(groups, row.id, selector=new)
        yield from ((f"group/{row.name}", said) for said in _said(row.selector, new, keys))


def _policies(keys: Keys) -> Iterator[tuple[str, str]]:
    newest = {row.name: row.id for row in _all(sa.select(policies).order_by(policies.c.version))}
    for row in _all(sa.select(policies).order_by(policies.c.id)):
        document, said = _document(row.document, keys)
        if document != row.document:
            _set(policies, row.id, document=document)
        if newest[row.name] == row.id:
            yield from ((f"policy/{row.name}", sentence) for sentence in said)


def _rollouts(keys: Keys) -> Iterator[tuple[str, str]]:
    for row in _all(sa.select(rollouts).order_by(rollouts.c.id)):
        document, said = _document(row.document, keys)
        if document == row.document and not said:
            continue
        _set(rollouts, row.id, document=document)
        if row.state in ("rolled_back", "completed", "aborted"):
            continue
        _rename_slices(row.id, keys)
        yield from ((f"rollout/r{row.id}", sentence) for sentence in said)


def _document(document: dict[str, Any], keys: Keys) -> tuple[dict[str, Any], list[str]]:
    said: list[str] = []

    def wave(old: dict[str, Any]) -> dict[str, Any]:
        found = {**old, "gates": [gate(one) for one in old.get("gates") or []]}
        selector = (old.get("canary") or {}).get("selector")
        if selector:
            found["canary"] = {**old["canary"], "selector": rewritten(selector, keys)}
            said.extend(_said(selector, found["canary"]["selector"], keys))
        return found if "gates" in old or selector else old

    def gate(old: dict[str, Any]) -> dict[str, Any]:
        asked = old.get("slice_by") or []
        for key in asked:
            said.extend(_said(key, renamed(key, keys), keys))
        return {**old, "slice_by": [renamed(key, keys) for key in asked]} if asked else old

    waves = [wave(one) for one in document.get("waves") or []]
    return {**document, "waves": waves}, list(dict.fromkeys(said))


def _rename_slices(rollout: int, keys: Keys) -> None:
    """What was told apart so far stays beside what is told apart from now on."""
    for kind, columns in ((heard, ("rollout_id", "device_id")), (samples, ("id",))):
        asked = sa.select(kind).where(kind.c.rollout_id == rollout)
        for row in _all(asked):
            new = {renamed(key, keys): value for key, value in (row.slices or {}).items()}
            if new != (row.slices or {}):
                here = [kind.c[name] == getattr(row, name) for name in columns]
                op.get_bind().execute(sa.update(kind).where(*here).values(slices=new))


def _labels() -> Iterator[tuple[str, str]]:
    """After all that asks: what is asked by the old key was rewritten by then."""
    for kind, word in ((devices, "device"), (codes, "code")):
        for row in _all(sa.select(kind).where(sa.cast(kind.c.labels, sa.Text).like('%"fact.%'))):
            new = {label_key(key): value for key, value in (row.labels or {}).items()}
            if new != row.labels:
                _set(kind, row.id, labels=new)
                name = row.name if word == "device" else row.id
                yield f"{word}/{name}", f"has its labels fact.… called x-{FACT}… now"


def label_key(key: str) -> str:
    return f"x-{key}"[:64].rstrip("._-") if key.startswith(FACT) else key


def renamed(key: str, keys: Keys) -> str:
    """A key as it is asked by from now on."""
    return f"{FACT}{key}" if keys.is_fact(key) else label_key(key)


def rewritten(selector: str, keys: Keys) -> str:
    """A selector that selects nobody whom it did not."""
    parts = [_condition(tokens, keys) for tokens in _conditions(selector)]
    made = ",".join(text for texts in parts for text in texts)
    if len(made) > MAX_LENGTH or sum(map(len, parts)) > MAX_CONDITIONS:
        return NOBODY
    return made


def _conditions(selector: str) -> Iterator[list[str]]:
    """The tokens of each condition, blanks among them."""
    tokens: list[str] = []
    depth = 0
    for token in TOKEN.findall(selector):
        depth += (token == "(") - (token == ")")
        if token == "," and not depth:
            yield tokens
            tokens = []
        else:
            tokens.append(token)
    yield tokens


def _condition(tokens: list[str], keys: Keys) -> list[str]:
    """It, or it and what has to hold beside it."""
    at, key = _key(tokens)
    if key is None:
        return ["".join(tokens)]

    def by(name: str) -> str:
        return "".join([*tokens[:at], name, *tokens[at + 1 :]])

    if keys.is_either(key) and _is_negative(tokens, at):
        return [by(label_key(key)), f" {by(FACT + key).strip()}"]
    return [by(renamed(key, keys))]


def _key(tokens: list[str]) -> tuple[int, str | None]:
    for at, token in enumerate(tokens):
        if not token.isspace() and token != "!":
            return at, None if token == "*" else token
    return 0, None


def _is_negative(tokens: list[str], at: int) -> bool:
    after = next((token for token in tokens[at + 1 :] if not token.isspace()), "")
    return "!" in tokens[:at] or after in ("!=", "notin")


def _said(old: str, new: str, keys: Keys) -> Iterator[str]:
    """What the operator should know of it."""
    asked = dict.fromkeys(key for tokens in _conditions(old) if (key := _key(tokens)[1]))
    if new == NOBODY:
        yield f"selects nobody now: with facts apart, `{old}` would be too long; write it anew"
        return
    for key in asked:
        if keys.is_fact(key):
            yield (
                f"`{old}` reads `{new}` now: no operator has set {key} as a label, devices report "
                "it themselves. Whoever holds a device can have it say so; where that matters, "
                "give the devices a label"
            )
        elif keys.is_either(key):
            yield (
                f"`{old}` reads `{new}` now: {key} is a label of some devices and a fact of "
                f"others, and the label alone counts. {_lost(key)}"
            )
        elif key.startswith(FACT):
            yield f"`{old}` reads `{new}` now: what begins with {FACT} is a device's own word"


def _lost(key: str) -> str:
    """Whom an operator may want to give the label to."""
    only_fact = sa.and_(_has("facts", key), sa.not_(_has("labels", key)))
    names = op.get_bind().scalars(
        sa.select(devices.c.name).where(only_fact).order_by(devices.c.name).limit(SHOWN + 1)
    )
    found = list(names)
    if not found:
        return "Every device that reports it has the label too"
    more = " and others" if len(found) > SHOWN else ""
    return f"Without the label: {', '.join(found[:SHOWN])}{more}"


def _has(column: str, key: str) -> Any:
    if op.get_bind().dialect.name == "sqlite":
        return sa.func.json_type(devices.c[column], f'$."{key}"').is_not(None)
    return devices.c[column].op("->")(key).is_not(None)


def _anyone(kind: Any, column: str, key: str) -> bool:
    if op.get_bind().dialect.name == "sqlite":
        there = sa.func.json_type(kind.c[column], f'$."{key}"').is_not(None)
    else:
        there = kind.c[column].op("->")(key).is_not(None)
    return op.get_bind().scalar(sa.select(sa.literal(1)).where(there).limit(1)) is not None


def _all(query: Any) -> Any:
    return op.get_bind().execute(query).all()


def _set(kind: Any, id: int, **values: Any) -> None:
    op.get_bind().execute(sa.update(kind).where(kind.c.id == id).values(**values))
