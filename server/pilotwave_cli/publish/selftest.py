"""Let a version take the device's self-test here, before it is signed.

What the device's agent finds wrong with the model itself is refused; what this desk alone lacks is
said, and no more.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pilotwave_cli import output
from pilotwave_cli.errors import CliError
from pilotwave_cli.publish.ask_agent import AGENT, ask_selftest, find_agent
from pilotwave_cli.publish.build_manifest import Built
from pilotwave_protocol.manifest import Variant
from pilotwave_protocol.states import Reason

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
        _judge(made.variant, ask_selftest(agent, manifest, made), sources[name])


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
