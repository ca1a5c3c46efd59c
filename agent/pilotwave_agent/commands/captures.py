"""Show a device's owner which captured cases wait, and remove them before they are sent.

What is in them only the key of `reader` opens, which is not on the device.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from pilotwave_agent import permissions
from pilotwave_agent.captures import forget, kept
from pilotwave_agent.host.disk import Disk
from pilotwave_agent.host.layout import Layout
from pilotwave_agent.settings.config import Config
from pilotwave_protocol.errors import PilotwaveError
from pilotwave_protocol.fields import format_time

_SHORT = 12


class NoSuchCase(PilotwaveError):
    """Nothing that waits was meant."""

    code = "no_such_case"


def list_cases(config: Config, *, as_json: bool) -> Iterator[str]:
    """Yield the lines that tell of the cases that wait, oldest first."""
    found = list(kept(Disk(), Layout(config.data_dir)))
    if as_json:
        rows = [{**vars(k.case), "at": format_time(k.case.at), "bytes": k.size} for k in found]
        yield json.dumps(rows, indent=2)
        return
    settings = config.capture
    if settings.reader:
        yield f"captured: {', '.join(settings.reasons)}; sealed for {settings.reader}"
    else:
        yield "nothing is captured: the settings name no `reader` in the section [capture]"
    if settings.hold_hours:
        yield f"held for {settings.hold_hours} h before they may be sent"
    for k in found:
        case, kb = k.case, max(k.size >> 10, 1)
        what = f"{case.model} {case.version} ({case.variant})"
        yield f"{case.id[:_SHORT]}  {format_time(case.at)}  {case.reason}  {what}  {kb} KiB"
    yield f"{len(found)} wait for the server"


def forget_cases(config: Config, ids: Sequence[str], *, all_of_them: bool) -> str:
    """Remove cases that wait, named by their ids or how those begin. Raises `NoSuchCase`."""
    if bool(ids) is all_of_them:
        raise NoSuchCase("say which to forget: ids, as `captures list` shows them, or --all")
    disk, layout = Disk(), Layout(config.data_dir)
    permissions.check(layout)
    meant = None
    if ids:
        known = [k.case.id for k in kept(disk, layout)]
        meant = {name for name in known if any(name.startswith(i) for i in ids)}
        if not meant:
            raise NoSuchCase("none of these waits; it may have been sent")
    return f"forgot {forget(disk, layout, meant)}"
