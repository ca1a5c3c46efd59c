"""Hold a download against the device's own disk budgets: `max_model_mb` and `max_models_mb`.

A mistaken order of a large model, or of many, must not fill a disk that nobody can reach. What runs
goes on; the order waits with a reason until it, the budget or what lies here changes.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pilotwave_agent.host.disk import Disk
from pilotwave_agent.settings.config import Config
from pilotwave_protocol.errors import RefusedError
from pilotwave_protocol.manifest import FileEntry
from pilotwave_protocol.states import Reason

_MB = 1 << 20


def check(config: Config, disk: Disk, blobs: Path, *, total: int, missing: int) -> None:
    """Raise `RefusedError(OVER_BUDGET)` if a version of `total` bytes, of which `missing` are not
    here yet, goes beyond a budget."""
    one, all_of_them = config.max_model_mb * _MB, config.max_models_mb * _MB
    if one and total > one:
        raise RefusedError(
            Reason.OVER_BUDGET,
            f"the version has {_mb(total)}; max_model_mb allows {config.max_model_mb} MB",
        )
    if not all_of_them or not missing:
        return
    here = sum(disk.size(blobs / name) or 0 for name in disk.names(blobs))
    if here + missing > all_of_them:
        raise RefusedError(
            Reason.OVER_BUDGET,
            f"{_mb(missing)} more beside {_mb(here)} of all models here; max_models_mb allows"
            f" {config.max_models_mb} MB",
        )


def total_of(files: Iterable[FileEntry]) -> int:
    """Return how many bytes different files have together."""
    return sum({f.sha256: f.size for f in files}.values())


def _mb(count: int) -> str:
    return f"{count / _MB:.1f} MB"
