"""Let a version take the device's self-test here, before it is signed.

The device's agent is another program: it is started where it is installed, and asked. What it finds
wrong with the model itself is refused; what this desk alone lacks is said, and no more.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pilotwave_cli import output
from pilotwave_cli.errors import CliError
from pilotwave_cli.publish.build_manifest import Built
from pilotwave_protocol.manifest import Variant
from pilotwave_protocol.states import Reason

AGENT = "pilotwave-agent"
TIMEOUT_S = 60
# the wait for the agent itself, beyond the test's own limit
_PATIENCE_S = 30
# what runs anywhere; engines and programs are made for another machine than the desk
_PORTABLE = ("onnxruntime", "litert", "tflite-runtime", "openvino", "torch", "executorch")
# what lies with the model; memory, time and versions are the desk's own
_REFUSED = frozenset(
    {
        Reason.SELFTEST_FORMAT, Reason.SELFTEST_LOAD, Reason.SELFTEST_OPERATOR,
        Reason.SELFTEST_SCHEMA, Reason.SELFTEST_MISMATCH, Reason.SELFTEST_NONFINITE,
        Reason.SELFTEST_CRASH, Reason.SELFTEST_SEGFAULT, Reason.SELFTEST_ERROR,
    }
)  # fmt: skip


def try_out(manifest: bytes, built: Iterable[Built], sources: Mapping[str, Path]) -> None:
    """Try each variant; raise `CliError` for one that devices would refuse. `sources` are the files
    or folders that were named, by variant."""
    agent = find_agent()
    for made in built:
        name = made.variant.name
        if made.variant.runtime not in _PORTABLE or made.variant.requires.accelerator:
            continue
        if agent is None:
            output.warn(f"{name}: not tried here, as {AGENT} is not installed; devices will")
            continue
        _judge(made.variant, _ask(agent, manifest, made), sources[name])


def find_agent() -> str | None:
    """Return the agent beside this program, or on PATH."""
    beside = Path(sys.executable).with_name(AGENT)
    return str(beside) if os.access(beside, os.X_OK) else shutil.which(AGENT)


def _ask(agent: str, manifest: bytes, made: Built) -> dict[str, Any]:
    words = [agent, "selftest", str(folder_of(made)), "--variant", made.variant.name]
    try:
        done = subprocess.run(
            [*words, "--timeout", str(TIMEOUT_S)],
            input=manifest,
            capture_output=True,
            env={k: v for k, v in os.environ.items() if not k.startswith("PILOTWAVE_")},
            timeout=TIMEOUT_S + _PATIENCE_S,
            check=False,
        )
        found = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.TimeoutExpired):
        found = None
    return found if isinstance(found, dict) else {}


def folder_of(made: Built) -> Path:
    """Return the folder in which the variant's paths lie."""
    entrypoint = next(f for f in made.variant.files if f.path == made.variant.entrypoint)
    depth = entrypoint.path.count("/")
    return Path(os.path.abspath(made.sources[entrypoint.sha256])).parents[depth]


def _rewrite(source: Path) -> str:
    """What helps where the golden cases are of another model than this one."""
    command = f"pilotwave golden {shlex.quote(str(source))} --inputs data.npz"
    return f"if its answers are right and the cases are old, write new cases: `{command}`; "


def _refused(variant: Variant) -> frozenset[Reason]:
    """Which reasons lie with the model. Too little agreement does, unless the variant asks for some
    processors: this desk's may be none of them."""
    return _REFUSED if variant.requires.cpu_any else _REFUSED | {Reason.SELFTEST_AGREEMENT}


def _judge(variant: Variant, found: dict[str, Any], source: Path) -> None:
    sentence = output.plain(found.get("sentence") or f"{AGENT} gave no answer; is it an older one?")
    if found.get("ok") is True:
        if not found.get("tried"):
            output.warn(f"{variant.name}: loaded, not tried: it took no input that was made up")
    elif found.get("reason") in _refused(variant):
        raise CliError(
            f"{variant.name}: devices would refuse it ({found['reason']}): {sentence}; "
            f"{_rewrite(source) if found['reason'] == Reason.SELFTEST_MISMATCH else ''}"
            "--no-try publishes it all the same"
        )
    else:
        output.warn(f"{variant.name}: not tried here: {sentence}")
