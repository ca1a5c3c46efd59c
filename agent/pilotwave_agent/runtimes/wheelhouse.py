"""`wheelhouse`: an agent as wheels; built into an environment of its own, and asked to test itself.

The environment is made beside the running one by `venv` and `pip`, offline, from the version's
verified files alone: exact versions, each wheel held against its digest, no code of theirs run.
What the wheels do not bring (a runtime, say) comes from the agent that was installed by hand.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import Any

from pilotwave_agent.host.disk import Disk
from pilotwave_agent.runtimes import command
from pilotwave_agent.runtimes.installed import site_packages
from pilotwave_agent.self_update import launch
from pilotwave_protocol import sniff
from pilotwave_protocol.errors import RefusedError
from pilotwave_protocol.states import Reason

_TAIL = 4096
_PIP = (
    *("-m", "pip", "--isolated", "--no-input", "--disable-pip-version-check", "install"),
    *("--quiet", "--no-cache-dir", "--no-index", "--no-deps", "--require-hashes"),
    *("--only-binary", ":all:"),
)


def build_missing(
    disk: Disk, folder: Path, entrypoint: str, target: Path, *, timeout_s: float
) -> bool:
    """Build the environment of the version in `folder` unless `target` is there; say whether. It
    gets its name by one rename, so that what has it is whole. Raises `RefusedError`, `OSError`."""
    if target.is_dir():
        return False
    listed = folder / entrypoint
    try:
        found = sniff.sniff_file(listed)
    except sniff.BadModel as e:
        raise RefusedError(Reason.SELFTEST_FORMAT, str(e)) from e
    if found.format != "wheelhouse":
        sentence = f"{entrypoint} is {found.format} by its content, no list of packages"
        raise RefusedError(Reason.SELFTEST_FORMAT, sentence)
    staging = target.with_name(f".staging-{target.name}")
    disk.make_dirs(target.parent)
    disk.remove_tree(staging)
    venv.EnvBuilder(symlinks=True, with_pip=False).create(staging)
    inside = site_packages(staging / "bin" / "python")[0]
    base = os.environ.get(launch.PYTHON) or sys.executable
    wheels = sorted({str(path.parent) for path in folder.rglob("*.whl")}) or [str(folder)]
    links = [word for path in wheels for word in ("--find-links", path)]
    _run([base, "-I", *_PIP, *links, "--target", inside, "-r", str(listed)], timeout_s)
    others = "".join(f"{path}\n" for path in site_packages(Path(base)))
    Path(inside, "pilotwave-installed.pth").write_text(others, encoding="utf-8")
    for place, _, files in os.walk(staging, topdown=False):
        for name in files:
            if not Path(place, name).is_symlink():
                disk.sync_file(Path(place, name))
        disk.sync_dir(Path(place))
    disk.move(staging, target)
    return True


def _run(words: list[str], timeout_s: float) -> None:
    with tempfile.TemporaryFile() as noise:
        try:
            status = subprocess.run(
                words,
                stdin=subprocess.DEVNULL,
                stdout=noise,
                stderr=noise,
                timeout=timeout_s,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired:
            sentence = f"pip: no end within {timeout_s:g} s"
            raise RefusedError(Reason.SELFTEST_TIMEOUT, sentence) from None
        noise.seek(max(noise.seek(0, os.SEEK_END) - _TAIL, 0))
        said = " ".join(noise.read().decode(errors="replace").split())[-300:]
    if status:
        raise RefusedError(Reason.SELFTEST_LOAD, f"its packages cannot be installed: {said}")


def run(program: Path, folder: Path) -> dict[str, Any]:
    """Have the agent in the environment `program` test itself. Raises `RefusedError`, `OSError`."""
    words = [str(program / "bin" / "python"), "-I", "-m", "pilotwave_agent.cli"]
    return command.ask(words, "the new agent", folder, None)
