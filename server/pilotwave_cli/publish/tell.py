"""What is said of a version that is published: what is rarely meant, and what was done."""

from __future__ import annotations

from typing import Any

from pilotwave_cli import output
from pilotwave_cli.client import Api
from pilotwave_cli.errors import Failed
from pilotwave_cli.publish.build_manifest import Built
from pilotwave_protocol.messages.facts import AGENT_MANIFEST
from pilotwave_protocol.tensortypes import CASES


def warn(built: list[Built]) -> None:
    """Say what is allowed but rarely meant."""
    for variant in (b.variant for b in built):
        if variant.selftest is None:
            output.warn(
                f"{variant.name}: no {CASES}: devices check only that it loads and runs "
                "(`pilotwave golden --help`)"
            )
        if variant.format == "tensorrt-plan" and not variant.requires.accelerator:
            output.warn(
                f"{variant.name}: an engine runs only on the kind of GPU that it was built on; "
                "name it, as with --requires accelerator=sm_87"
            )
        unknown = variant.format == "onnx" and not variant.runtime_version
        if unknown and variant.runtime == "onnxruntime":
            output.warn(
                f"{variant.name}: its opset is newer than any ONNX Runtime known here; "
                "say what it needs with --runtime-version"
            )


def too_old(api: Api, schema: int) -> str | None:
    """Say how many of the fleet's agents cannot read a manifest of `schema`; None: all can, or this
    token may not count devices."""
    if schema == 1:
        return None
    try:
        enrolled = api.get("/device-count", state="enrolled")["devices"]
        reads = f"fact.{AGENT_MANIFEST}>={schema}"
        able = api.get("/device-count", state="enrolled", selector=reads)["devices"]
    except Failed:
        return None
    held = enrolled - able
    return (
        f"{held} of {enrolled} devices have an agent that cannot read its manifest (schema "
        f"{schema}) and are not offered it: update their agents first"
        if held
        else None
    )


def tell(done: dict[str, Any], built: list[Built]) -> None:
    """Say what was published, or that it was there before."""
    what, sent = f"{done['model']} {done['version']}", output.size(done["bytes_sent"])
    if done.get("repeated"):
        again = f"; the server lacked {sent}, which were sent again" if done["bytes_sent"] else ""
        output.say(f"{what} was published before, with this very content{again}")
        return
    total = sum(b.variant.size for b in built)
    output.say(f"published {what} ({output.size(total)}, {sent} sent)")
    for made in (b.variant for b in built):
        tested = "self-test" if made.selftest else "no self-test"
        kind = f"{made.format} for {made.runtime} {made.runtime_version}".rstrip()
        io = f"{output.tensors(made.inputs)} -> {output.tensors(made.outputs)}"
        files = f"{len(made.files)} file{'' if len(made.files) == 1 else 's'}"
        output.say(f"  {made.name}: {kind}, {files}, {tested}")
        if made.inputs and made.outputs:
            output.say(f"    {io}")
