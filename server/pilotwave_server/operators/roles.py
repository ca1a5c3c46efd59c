"""What a role may do. Publisher and operator do not include one another; admin includes all."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Literal


class Role(str, Enum):
    VIEWER = "viewer"
    PUBLISHER = "publisher"
    OPERATOR = "operator"
    ADMIN = "admin"

    def covers(self, needed: Role) -> bool:
        """Whether this role may do what `needed` may."""
        return needed in COVERS[self]


COVERS: dict[Role, frozenset[Role]] = {
    Role.VIEWER: frozenset({Role.VIEWER}),
    Role.PUBLISHER: frozenset({Role.VIEWER, Role.PUBLISHER}),
    Role.OPERATOR: frozenset({Role.VIEWER, Role.OPERATOR}),
    Role.ADMIN: frozenset(Role),
}


@dataclass(frozen=True)
class Actor:
    """Who makes a request: a token or a person. `str()` is its name in the audit log.

    `models` and `groups` are all that a token of limited scope may change; None: no such limit.
    """

    token_id: str
    name: str
    role: Role
    kind: Literal["token", "person"] = "token"
    models: frozenset[str] | None = None
    groups: frozenset[str] | None = None

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}"

    @property
    def limited(self) -> bool:
        """Whether its scope is limited."""
        return self.models is not None or self.groups is not None
