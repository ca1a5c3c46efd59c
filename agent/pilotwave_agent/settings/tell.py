"""The `[[tell]]` tables of the settings: who is told of a switch, how, and how long it may take."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from pilotwave_protocol import names
from pilotwave_protocol.fields import Fields

ACTIONS = ("reload", "restart", "reload-or-restart", "try-restart")
# what each kind cannot do without
NEEDS = {
    "apps": (),
    "exec": ("command",),
    "systemd": ("unit",),
    "http": ("url",),
    "triton": ("url", "folder"),
    "openvino": ("url", "folder"),
    "tensorflow": ("folder",),
    "deepstream": ("file",),
}


@dataclass(frozen=True)
class Tell:
    """One way to tell. `models` empty: all; `name` is the model's name at the serving layer (empty:
    the same), `apps` how many applications must take part at least."""

    kind: str
    models: tuple[str, ...] = ()
    timeout_s: float = 30.0
    apps: int = 1
    command: tuple[str, ...] = ()
    unit: str = ""
    action: str = "reload-or-restart"
    url: str = ""
    name: str = ""
    folder: Path | None = None
    file: Path | None = None
    section: str = "primary-gie"


def read_tell(f: Fields, base: Path) -> Tell:
    """Read one table; relative paths are taken from `base`."""
    tell = Tell(
        kind=_word(f, "kind", tuple(NEEDS), default=...),
        models=tuple(names.check_model(m) for m in f.texts("models", limit=64, default=[])),
        timeout_s=f.number("timeout_s", low=0.1, high=3600.0, default=30.0),
        apps=f.integer("apps", low=0, high=100, default=1),
        command=tuple(f.texts("command", limit=64, length=4096, default=[])),
        unit=f.text("unit", default=""),
        action=_word(f, "action", ACTIONS, default="reload-or-restart"),
        url=f.text("url", default="").rstrip("/"),
        name=f.text("name", default=""),
        folder=_path(f, "folder", base),
        file=_path(f, "file", base),
        section=f.text("section", default="primary-gie"),
    )
    f.done()
    for key in NEEDS[tell.kind]:
        if not getattr(tell, key):
            raise f.fail(key, f"a value, as kind {tell.kind} needs one", "")
    if tell.url and not tell.url.startswith(("http://", "https://")):
        raise f.fail("url", "an http or https URL", tell.url)
    if tell.unit.startswith("-"):
        raise f.fail("unit", "a unit's name", tell.unit)
    return tell


def _word(f: Fields, key: str, words: tuple[str, ...], *, default: object) -> str:
    found = f.text(key, default=default)
    if found not in words:
        raise f.fail(key, f"one of {', '.join(words)}", found)
    return found


def _path(f: Fields, key: str, base: Path) -> Path | None:
    found = f.text(key, default="")
    return base / os.path.expanduser(found) if found else None
