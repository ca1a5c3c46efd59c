"""`pilotwave learn fetch`: the base version with the head that the fleet learnt, if it is better.

What the server made is unsigned. It is put into the publisher's own file here, judged on the
publisher's own data by the guard of `pilotwave optimize`, and signed by `pilotwave publish` like
any version.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from pilotwave_cli import output
from pilotwave_cli.client import connect
from pilotwave_cli.errors import CliError, Failed
from pilotwave_cli.learn.base_version import Judged, built_from, check_is_published, judged
from pilotwave_cli.learn.find_round import find_round
from pilotwave_cli.optimize.guard import judge, percent, top_of
from pilotwave_cli.optimize.recipes import Recipe
from pilotwave_cli.optimize.run_tool import Limits, run_tool
from pilotwave_cli.output import Json
from pilotwave_cli.shares import read_share
from pilotwave_protocol.errors import BadMessage
from pilotwave_protocol.learning.statistics import Floats, read_numbers, scores, write_numbers

HEAD = Recipe(
    name="head",
    tool="onnx_head",
    entrypoint="model.onnx",
    extra="optimize",
    modules=("onnx",),
    runtime="onnxruntime",
    precision="fp32",
)
_SCALES = np.geomspace(0.1, 100, 61)


def fetch(
    model: Annotated[str, typer.Argument(help="The model.")],
    plan: Annotated[str, typer.Argument(help="The plan's name.")],
    file: Annotated[Path, typer.Option("--file", help="The base version's ONNX file, here.")],
    evaluate: Annotated[
        Path, typer.Option("--evaluate", help="Labelled inputs that the plan has not seen.")
    ],
    out: Annotated[Path, typer.Option("--out", help="The new ONNX file.")],
    max_loss: Annotated[str, typer.Option(help="Inputs that may become wrong, such as 5%.")] = "5%",
    as_json: Json = False,
) -> None:
    """Put the head that a fleet learnt into the model, judge it, and write it."""
    if out.exists():
        raise CliError(f"{out}: exists already; move it away first")
    allowed = read_share("--max-loss", max_loss)
    with connect() as api, built_from(file, "base") as made:
        found = find_round(api, model, plan)
        check_is_published(api, made, model, found["base"], found["variant"])
        raw = api.send("GET", f"/api/v1/learning/rounds/{found['id']}/head").content
        before = judged(made, evaluate, found["embedding"])
    head = _read_head(raw, found["features"], found["classes"])
    if before.embeddings.shape[1] != found["features"]:
        raise Failed(f"{file}: {found['embedding']} is not {found['features']} wide")
    head = _scaled(head, before)
    with tempfile.TemporaryDirectory(prefix="pilotwave-learn-") as scratch:
        candidate = _rebuilt(file, head, found["embedding"], evaluate, Path(scratch))
        with built_from(candidate, "candidate") as made:
            after = judged(made, evaluate, found["embedding"])
        verdict = judge(top_of(before.scores), top_of(after.scores), before.labels, allowed)
        right = float((top_of(before.scores) == before.labels).mean())
        told: dict[str, Any] = {
            "rows": verdict.rows,
            "right_before": right,
            "right_after": verdict.top1,
            "wrong_now": verdict.worse,
            "loss_bound": verdict.bound,
        }
        if verdict.accepted:
            out.write_bytes(candidate.read_bytes())
    _show(told, as_json)
    if not verdict.accepted:
        raise Failed(f"nothing is written: {verdict.why}")
    if not as_json:
        output.say(f"wrote {out}; `pilotwave publish {model} VERSION` signs and ships it")


def _show(told: dict[str, Any], as_json: bool) -> None:
    if as_json:
        output.show_json(told)
        return
    output.facts(
        f"Judged on {told['rows']} inputs",
        [
            ("right before", f"{told['right_before']:.1%}"),
            ("right after", f"{told['right_after']:.1%}"),
            ("right before, wrong now", f"{told['wrong_now']}, so at most"
             f" {percent(told['loss_bound'])} of all"),
        ],
    )  # fmt: skip


def _read_head(raw: bytes, features: int, classes: int) -> Floats:
    try:
        return read_numbers(raw, (features + 1) * classes).reshape(features + 1, classes)
    except BadMessage as e:
        raise Failed(f"the round's result: {e}") from e


def _scaled(head: Floats, before: Judged) -> Floats:
    """Scale a head so that its softmax means what it says on the data (temperature scaling: Guo et
    al., "On Calibration of Modern Neural Networks", ICML 2017). Which class is first stays."""
    z = scores(head, before.embeddings.astype(np.float64))
    z = z - z.max(axis=1, keepdims=True)
    rows = np.arange(len(z))

    def loss(scale: float) -> float:
        s = z * scale
        return float((np.log(np.exp(s).sum(axis=1)) - s[rows, before.labels]).mean())

    return np.asarray(head * min(_SCALES, key=loss))


def _rebuilt(file: Path, head: Floats, embedding: str, evaluate: Path, folder: Path) -> Path:
    """Write the model with this head. Raises `ToolFailed`."""
    numbers, out = folder / "head.bin", folder / HEAD.entrypoint
    numbers.write_bytes(write_numbers(head))
    source = file / HEAD.entrypoint if file.is_dir() else file
    task = {
        "model": str(source.absolute()),
        "calibration": str(evaluate.absolute()),
        "out": str(out),
        "shapes": {},
        "options": {
            "embedding": embedding,
            "head": str(numbers),
            "classes": str(head.shape[1]),
        },
    }
    run_tool(HEAD, task, Limits())
    return out
