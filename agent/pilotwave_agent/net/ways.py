"""What a way to a file is: the whole file is one, a delta upon an older file another.

A way says what to ask the server for, judges what is answered and makes the file of what has
arrived. When it is asked for, how fast, how often and from whom, is the downloader's to say.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from pilotwave_agent.net.http import Streamed
from pilotwave_protocol.manifest import FileEntry


class NoUse(Exception):
    """This way does not lead to the file; another may."""


class NotYet(Exception):
    """The server is making what was asked for: ask again after so many seconds."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"ask again in {seconds} s")
        self.seconds = seconds


class Way(Protocol):
    """One way to the file `entry`, which the server has at `path`.

    What arrives is kept in `part`: `size` bytes so far, of what has the ETag `tag`; `resumed` says
    whether they are of an earlier try, so that a power cut may have torn them.
    """

    entry: FileEntry
    path: str
    part: Path
    tag: str
    size: int
    resumed: bool

    def resume(self) -> bool:
        """Look at what has arrived before; say whether that is all."""

    def judge(self, answer: Streamed, room: int) -> int:
        """Check an answer before a byte of it is kept; return the size of all that is to arrive.

        `room` bytes of the disk may be taken. Raises `NoUse`, `NotYet`, `RefusedError`.
        """

    def took(self, chunk: bytes) -> None:
        """Look at bytes before they are kept. Raises `RefusedError`."""

    def finish(self, check: Callable[[], None]) -> None:
        """Put the file into the blob store; `check`, called now and then, may end it.

        Raises `NoUse`, `RefusedError`, `OSError`, and what `check` raises.
        """
