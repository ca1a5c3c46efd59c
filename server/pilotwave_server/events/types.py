"""Every type of event that there is: the audit log's verbs, and the reports of devices."""

from __future__ import annotations

import difflib
from collections.abc import Collection

from pilotwave_server.events.feed import BECAME, BadEventType, Types

_BY_FAMILY = {
    "attention": "acknowledge withdraw",
    "baseline": "end keep remove set",
    "blob": "remove",
    "capture": "delete",
    "delta": "again",
    "device": "accept ask came_back conflict conflict_end decommission diagnostics "
    "diagnostics_forgotten enrol expire fell_silent heard keep label pin refusing "
    "refusing_end reject remove retry revoke rollback silent unpin",
    "enrolment_code": "create revoke",
    "fleet": "backup create lift restore",
    "group": "add change create delete remove",
    "learning": "complete end fail open_wave pause resume start stop",
    "model": "create metadata publishers reset",
    "person": "bind create disable enable link link_used login password role totp_off totp_on "
    "unbind",
    "policy": "save",
    "rollout": "abort approve complete create next open_wave pause resume retry rollback "
    "rolled_back start",
    "site": "limit",
    "token": "create revoke",
    "trust": "director_key online_key root targets",
    "version": "deny publish purge readmit undeny yank",
    "webhook": "change create delete secret test",
}
VERBS = frozenset(f"{family}.{word}" for family, all in _BY_FAMILY.items() for word in all.split())
EVENT_TYPES = VERBS | BECAME


def check_types(patterns: Collection[str]) -> Types:
    """What somebody asks to be told of; BadEventType for a type or family that does not exist."""
    found = Types(list(patterns))
    families = {name.partition(".")[0] for name in EVENT_TYPES}
    for pattern in found.patterns:
        family = pattern[:-2] if pattern.endswith(".*") else ""
        if pattern != "*" and pattern not in EVENT_TYPES and family not in families:
            near = difflib.get_close_matches(pattern, EVENT_TYPES, n=3)
            hint = f"did you mean {' or '.join(near)}" if near else "docs/webhooks.md lists all"
            raise BadEventType(f"there is no type of event called {pattern}: {hint}")
    return found
