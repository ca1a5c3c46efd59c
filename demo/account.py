"""The demo's account: what happened, when, and whether each promise was kept.

It decides what the reader sees and how the demo ends; what is done and promised is the story's.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


class PromiseBroken(Exception):
    """Something that Pilotwave promises did not happen."""


@dataclass
class Account:
    """A timeline of lines, each with the seconds since the start."""

    started: float = field(default_factory=time.monotonic)
    lines: list[dict[str, Any]] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)

    def say(self, text: str, *, kind: str = "step", **facts: Any) -> None:
        """Print one line and keep it for the timeline."""
        at = time.monotonic() - self.started
        self.lines.append({"at_s": round(at, 3), "kind": kind, "text": text, **facts})
        mark = {"step": "·", "promise": "✓", "chapter": "\n▸", "broken": "✗"}[kind]
        print(f"{mark} {at:6.1f} s  {text}", flush=True)

    def chapter(self, title: str) -> None:
        """Open a part of the account."""
        self.say(title, kind="chapter")

    def promise(self, text: str, kept: bool, found: object = "") -> None:
        """Tick off a promise, or end the demo with what was found instead."""
        if kept:
            self.say(text, kind="promise")
            return
        self.say(f"{text}: NOT KEPT. Found: {found}", kind="broken")
        raise PromiseBroken(f"{text} (found: {found})")

    def wait(self, text: str, look: Callable[[], T | None], *, within_s: float = 300) -> T:
        """Wait until `look` finds something; that it does so in time is a promise."""
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            found = look()
            if found is not None:
                self.promise(text, True)
                return found
            time.sleep(0.2)
        self.promise(text, False, f"nothing of the kind within {within_s:g} s")
        raise AssertionError("a broken promise raises")

    def write(self, path: Path) -> None:
        """Write the timeline as JSON: {"lines": […], "figures": {…}}."""
        path.write_text(json.dumps({"lines": self.lines, "figures": self.figures}, indent=1) + "\n")
