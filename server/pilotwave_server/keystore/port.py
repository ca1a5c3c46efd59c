"""What a place for keys can do. A key is some bytes under a name: `online-1.pem`."""

from __future__ import annotations

import re
from typing import Protocol

from sqlalchemy.orm import Session

from pilotwave_server.errors import SetupError

NAME = re.compile(r"[a-z]+(?:-[a-z0-9]+)*(?:\.(?:pem|json))?")


class KeysUnusable(SetupError):
    code = "keys_unusable"


class KeyStore(Protocol):
    """A place for keys. With a session of `Database.write()` a change is part of its transaction,
    where the place is the database; without one it is kept when the call returns."""

    @property
    def where(self) -> str:
        """What the place is called in a sentence."""

    def read(self, beginning: str = "", session: Session | None = None) -> dict[str, bytes]:
        """The keys whose names begin so, by name. Raises KeysUnusable with what to do."""

    def add(self, name: str, data: bytes, session: Session | None = None) -> bool:
        """Keep a key, but never over another of that name; say whether it was kept."""

    def replace(self, name: str, data: bytes, session: Session | None = None) -> None:
        """Keep a key, over the one of that name if there is one."""

    def remove(self, name: str, session: Session | None = None) -> None:
        """Forget a key, if it is there."""
