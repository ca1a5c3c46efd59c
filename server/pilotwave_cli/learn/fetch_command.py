"""`pilotwave learn fetch`: the base version with the head that the fleet learnt, if it is better.

What the server made is unsigned. It is put into the publisher's own file here, judged on the
publisher's own data by the guard of `pilotwave optimize`, and signed by `pilotwave publish` like
any version.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from pilotwave_cli import output
from pilotwave_cli.client import connect
from pilotwave_cli.errors import CliError, Failed
from pilotwave_cli.learn import head_file
from pilotwave_cli.learn.base_version import built_from, check_is_published, judged
from pilotwave_cli.learn.find_experiment import find_experiment
from pilotwave_cli.optimize.guard import judge, percent, top_of
from pilotwave_cli.output import Json
from pilotwave_cli.shares import read_share


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
        found = find_experiment(api, model, plan)
        check_is_published(api, made, model, found["base"], found["variant"])
        raw = api.send("GET", f"/api/v1/learning/experiments/{found['id']}/head").content
        before = judged(made, evaluate, found["embedding"])
    head = head_file.read(raw, found["features"], found["classes"], "the result")
    if before.embeddings.shape[1] != found["features"]:
        raise Failed(f"{file}: {found['embedding']} is not {found['features']} wide")
    head = head_file.scaled(head, before)
    with tempfile.TemporaryDirectory(prefix="pilotwave-learn-") as scratch:
        candidate = head_file.rebuilt(file, head, found["embedding"], evaluate, Path(scratch))
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
