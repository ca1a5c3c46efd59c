"""Ask the device's agent about a variant's files. It is another program: it is started where it is
installed, told the manifest, and answers with one JSON object."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from pilotwave_cli.errors import CliError
from pilotwave_cli.publish.build_manifest import Built
from pilotwave_protocol.manifest import VersionManifest

AGENT = "pilotwave-agent"
TIMEOUT_S = 60
# the wait for the agent itself, beyond the test's own limit
_PATIENCE_S = 30


def find_agent() -> str | None:
    """Return the agent beside this program, or on PATH."""
    beside = Path(sys.executable).with_name(AGENT)
    return str(beside) if os.access(beside, os.X_OK) else shutil.which(AGENT)


def folder_of(made: Built) -> Path:
    """Return the folder in which the variant's paths lie."""
    entrypoint = next(f for f in made.variant.files if f.path == made.variant.entrypoint)
    depth = entrypoint.path.count("/")
    return Path(os.path.abspath(made.sources[entrypoint.sha256])).parents[depth]


def ask_selftest(
    agent: str, manifest: bytes, made: Built, timeout: float = TIMEOUT_S
) -> dict[str, Any]:
    """Return how the variant's self-test went; nothing where the agent did not say."""
    words = ["selftest", str(folder_of(made)), "--variant", made.variant.name]
    try:
        found = json.loads(_answer(agent, words, manifest, timeout).stdout)
    except (OSError, ValueError, subprocess.TimeoutExpired):
        found = None
    return found if isinstance(found, dict) else {}


def ask_golden(
    agent: str, made: Built, inputs: Path, folder: Path, limit: int, timeout: float
) -> dict[str, Any]:
    """Have golden cases written into `folder`; return how that went. Raises `CliError`."""
    variant = replace(made.variant, selftest=None)
    manifest = VersionManifest(model="golden", version="1.0.0", counter=1, variants=(variant,))
    words = ["golden", str(folder_of(made)), "--variant", variant.name, "--most", str(limit)]
    words += ["--inputs", str(inputs.absolute()), "--out", str(folder.absolute())]
    try:
        done = _answer(agent, words, manifest.to_bytes(), timeout)
    except (OSError, subprocess.TimeoutExpired) as e:
        raise CliError(f"{AGENT}: {e}") from e
    try:
        found = json.loads(done.stdout)
    except ValueError:
        said = done.stderr.decode(errors="replace").strip().removeprefix(f"{AGENT}: ")
        found = {"sentence": said.splitlines()[-1] if said else ""}
    return found if isinstance(found, dict) else {}


def _answer(
    agent: str, words: list[str], manifest: bytes, timeout: float
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [agent, *words, "--timeout", str(timeout)],
        input=manifest,
        capture_output=True,
        env={k: v for k, v in os.environ.items() if not k.startswith("PILOTWAVE_")},
        timeout=timeout + _PATIENCE_S,
        check=False,
    )
