"""Agents to replace the running one: this project's own code as wheels, some with a fault."""

from __future__ import annotations

import base64
import hashlib
import io
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from pilotwave_agent.facts import version_of

_AGENT = Path(__file__).parent.parent / "agent"
_PACKAGES = ("pilotwave_agent", "pilotwave_protocol", "pilotwave_systemd")
RUN = "pilotwave_agent/resident/run.py"


def _code(changes: Mapping[str, str]) -> dict[str, bytes]:
    """The agent's files, each of `changes` with these lines added at its end."""
    found = {
        path.relative_to(_AGENT).as_posix(): path.read_bytes()
        for package in _PACKAGES
        for path in sorted((_AGENT / package).rglob("*.py"))
    }
    return {name: data + changes.get(name, "").encode() for name, data in found.items()}


def wheel(changes: Mapping[str, str]) -> tuple[str, bytes]:
    """Return the name and the bytes of a wheel (PEP 427)."""
    version = version_of(("pilotwave",))
    about = f"pilotwave-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: pilotwave\nVersion: {version}\n"
    files = {
        **_code(changes),
        f"{about}/METADATA": metadata.encode(),
        f"{about}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    rows = [f"{name},sha256={_digest(data)},{len(data)}" for name, data in files.items()]
    files[f"{about}/RECORD"] = "\n".join([*rows, f"{about}/RECORD,,\n"]).encode()
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data)
    return f"pilotwave-{version}-py3-none-any.whl", out.getvalue()


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def wheelhouse(changes: Mapping[str, str] | None = None) -> dict[str, bytes]:
    """Return the files of a version of the agent."""
    name, data = wheel(changes or {})
    digest = hashlib.sha256(data).hexdigest()
    pin = f"pilotwave=={version_of(('pilotwave',))} --hash=sha256:{digest}\n"
    return {"requirements.txt": pin.encode(), name: data}


@cache
def _calls_itself(code: bytes) -> str:
    with tempfile.TemporaryDirectory() as folder:
        zipfile.ZipFile(io.BytesIO(code)).extractall(folder)
        say = f"import sys; sys.path.insert(0, {folder!r});"
        say += "from pilotwave_agent.facts import agent_version; print(agent_version())"
        return subprocess.check_output([sys.executable, "-I", "-c", say], text=True).strip()


def version_in(files: Mapping[str, bytes]) -> str:
    """Return the version by which this agent will call itself: `0.1.0+3f2a9c1e`."""
    return _calls_itself(next(data for name, data in files.items() if name.endswith(".whl")))
