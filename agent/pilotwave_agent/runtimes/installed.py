"""Which runtimes this device has, in which version. Nothing is imported or run to learn it.

Versions are read from the names of `.dist-info` folders: `importlib.metadata` says the same for a
megabyte of memory more, and cannot look into another interpreter.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pilotwave_agent.runtimes import RUNTIMES, nvidia
from pilotwave_protocol.fields import Scalar

if TYPE_CHECKING:
    from pilotwave_agent.settings.config import RuntimeSettings

EDGE_IMPULSE_PROTOCOL = "1"


def version_of(distributions: Iterable[str], folders: Iterable[str] | None = None) -> str | None:
    """Return the version of the first of these that is installed in `folders` (default: here)."""
    found = _installed(sys.path if folders is None else folders)
    wanted = (name.lower().replace("-", "_") for name in distributions)
    return next((found[name] for name in wanted if name in found), None)


def runtime_facts(
    settings: Mapping[str, RuntimeSettings], root: Path = Path("/")
) -> dict[str, Scalar | None]:
    """Return `runtime.<name>: version` for each that is here, by the agent's interpreter or by the
    one that the settings name, and the GPU architecture that engines are bound to."""
    here = _installed(sys.path)
    facts: dict[str, Scalar | None] = {}
    for name, runtime in RUNTIMES.items():
        own = settings.get(name)
        found = _installed(site_packages(Path(own.python))) if own and own.python else here
        names = (d.lower().replace("-", "_") for d in runtime.distributions)
        facts[f"runtime.{name}"] = next((found[n] for n in names if n in found), None)
    if facts["runtime.edge-impulse"]:  # so far numpy's version, which its golden cases need
        facts["runtime.edge-impulse"] = EDGE_IMPULSE_PROTOCOL
    # JetPack brings TensorRT as libraries and tools, with or without its Python package
    if facts["runtime.tensorrt"] is None and nvidia.has_trtexec(root):
        facts["runtime.tensorrt"] = nvidia.tensorrt_version(root)
    gpu = nvidia.gpu(root)
    return {**facts, **({f"accelerator.{gpu}": True} if gpu else {})}


def site_packages(python: Path) -> list[str]:
    """Return where an interpreter keeps packages, told by the layout of its folders; the first is
    for what pip installs.

    The link is not followed: an environment's python is one to the system's.
    """
    prefix = python.parent.parent
    patterns = ("lib/python3*/site-packages", "lib64/python3*/site-packages")
    found = [str(path) for pattern in patterns for path in sorted(prefix.glob(pattern))]
    if prefix in (Path("/usr"), Path("/usr/local")):
        places = ("/usr/lib/python3/dist-packages", "/usr/local/lib/python3*/dist-packages")
        found += [str(p) for place in places for p in Path("/").glob(place.lstrip("/"))]
    return found


def _installed(folders: Iterable[str]) -> dict[str, str]:
    """Return project -> version; the first folder that has it counts, as for an import."""
    found: dict[str, str] = {}
    for folder in folders:
        for name in _names(folder or "."):
            if name.endswith((".dist-info", ".egg-info")):
                project, _, version = name.rsplit(".", 1)[0].partition("-")
                key = project.lower().replace(".", "_")
                found.setdefault(key, version.partition("-")[0])
    return found


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []
