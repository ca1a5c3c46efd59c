"""`pilotwave calibrate`: write `escalate.json` beside a small model, worked out from labelled data.

Both models are run by the device's own self-test process, the bigger one on inputs as devices
would send them. What the data do not show is refused.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from pilotwave_cli import output
from pilotwave_cli.calibrate.threshold import (
    CannotPromise,
    Labelled,
    at_share,
    check_big_beats_small,
    promised,
)
from pilotwave_cli.errors import CliError, Failed
from pilotwave_cli.optimize.answers import DoesNotRun, answers_of, judged_output
from pilotwave_cli.optimize.data import Data, check_classes, check_fits, read_data
from pilotwave_cli.optimize.layout import Array
from pilotwave_cli.optimize.source import copied
from pilotwave_cli.options import spread
from pilotwave_cli.publish.ask_agent import AGENT, find_agent
from pilotwave_cli.publish.build_manifest import Built, build_variant
from pilotwave_cli.publish.variant_options import VariantOptions
from pilotwave_cli.shares import read_share
from pilotwave_protocol import names
from pilotwave_protocol.escalate import (
    ESCALATE,
    FP32,
    RULES,
    SITE,
    TIERS,
    UINT8,
    EscalateBudget,
    Escalation,
    Promise,
    Target,
    confidence,
    encoded,
    parse_escalate,
)

_TIMEOUT_S = 1800.0


@dataclass(frozen=True)
class Models:
    """Which models, and the data that judge them."""

    small: Annotated[Path, typer.Argument(help="Model of the device: a file, or its folder.")]
    big: Annotated[Path, typer.Argument(help="Bigger model, likewise.")]
    evaluate: Annotated[
        Path, typer.Option(help="Inputs by name, with their classes as `labels` (.npz).")
    ]
    model: Annotated[str, typer.Option(help="Name of the bigger model where it is served.")]
    version: Annotated[str | None, typer.Option(help="Its version. [default: any may answer]")] = (
        None
    )
    tier: Annotated[str, typer.Option(help="Where it is served: site or cloud.")] = SITE
    output: Annotated[str | None, typer.Option(help="Output that scores the classes.")] = None
    rule: Annotated[str, typer.Option(help="Confidence by margin, top or entropy.")] = "margin"
    out: Annotated[
        Path | None, typer.Option(help="Folder to write to. [default: the small model's]")
    ] = None


@dataclass(frozen=True)
class Terms:
    """What is promised, and what it may cost."""

    excess: Annotated[
        str | None,
        typer.Option(help="Promise: share of inputs wrong that would be right at the bigger one."),
    ] = None
    delta: Annotated[str, typer.Option(help="Chance that the promise does not hold.")] = "10%"
    share: Annotated[str, typer.Option(help="Share of calls that may be escalated.")] = "100%"
    tracked: Annotated[
        bool, typer.Option("--tracked", help="Keep to --share as inputs change; no promise.")
    ] = False
    mb_per_day: Annotated[int, typer.Option(min=1, help="Megabytes sent a day at most.")] = 100
    timeout_ms: Annotated[int, typer.Option(min=1, max=60_000, help="Wait for an answer.")] = 150


def add_to(cli: typer.Typer) -> None:
    """Add the command that stands at the top."""
    cli.command("calibrate")(calibrate)


@spread
def calibrate(what: Models, *, terms: Terms) -> None:
    """Work out when a small model asks a bigger one; write escalate.json."""
    target = _target(what)
    excess = _excess(terms)
    delta, share = (
        read_share("--delta", terms.delta),
        read_share("--share", terms.share, whole=True),
    )
    folder = what.out or (what.small if what.small.is_dir() else what.small.parent)
    if not folder.is_dir():
        raise CliError(f"{folder}: no such folder")
    data = read_data(what.evaluate)
    if data.labels is None:
        raise CliError(f"{data.path}: expected the classes as `labels`: whether an answer is right")
    found = _judge(what, data)
    labelled = found.labelled
    try:
        if excess is None:
            threshold, promise = at_share(labelled, share), None
        else:
            threshold = promised(labelled, excess=excess, delta=delta, share=share)
            promise = Promise(_decimal(excess), _decimal(delta), labelled.rows)
        check_big_beats_small(labelled, threshold, delta)
    except CannotPromise as e:
        raise Failed(str(e)) from e
    said = Escalation(
        rule=what.rule,
        output=found.output,
        softmax=found.softmax,
        threshold=_decimal(threshold),
        promise=promise,
        to=(target,),
        encode=found.encode,
        budget=EscalateBudget(_decimal(share), terms.mb_per_day * 1_000_000, terms.tracked),
        timeout_ms=terms.timeout_ms,
    )
    raw = said.to_bytes()
    parse_escalate(raw)
    (folder / ESCALATE).write_bytes(raw)
    _tell(labelled, said, threshold, folder)


def _target(what: Models) -> Target:
    if what.tier not in TIERS:
        raise CliError(f"--tier: expected {' or '.join(TIERS)}; got {what.tier}")
    if what.rule not in RULES:
        raise CliError(f"--rule: expected {' or '.join(RULES)}; got {what.rule}")
    names.check_model(what.model)
    if what.version is not None:
        names.check_version(what.version)
    return Target(what.tier, what.model, what.version)


def _excess(terms: Terms) -> float | None:
    if (terms.excess is None) is not terms.tracked:
        raise CliError(
            "expected --excess, which is promised, or --tracked with --share, and not both"
        )
    if terms.tracked and read_share("--share", terms.share, whole=True) == 1.0:
        raise CliError("--tracked: expected --share, such as 5%, which is kept to")
    return None if terms.excess is None else read_share("--excess", terms.excess)


@dataclass(frozen=True)
class _Judged:
    labelled: Labelled
    output: str
    softmax: bool
    encode: str


def _judge(what: Models, data: Data) -> _Judged:
    """Run both models on the data. Raises `CliError`."""
    agent = find_agent()
    if agent is None:
        raise CliError(f"{AGENT} is not installed here: pip install 'pilotwave[onnxruntime]'")
    with tempfile.TemporaryDirectory(prefix="pilotwave-calibrate-") as temp:
        small = _built(what.small, Path(temp) / "small")
        big = _built(what.big, Path(temp) / "big")
        check_fits(data, small.variant.inputs)
        encode = _encode(small, big)
        sent = _sent(data, encode)
        check_fits(sent, big.variant.inputs)
        scores, name = _scores(agent, small, data, what.output)
        theirs, _ = _scores(agent, big, sent, name)
    if scores.shape != theirs.shape:
        raise CliError(
            f"{what.big}: {name}: expected {scores.shape[1]} classes, as the small model has; "
            f"got {theirs.shape[1]}"
        )
    softmax = not _are_probabilities(scores)
    sure = [confidence(row, what.rule, softmax=softmax) for row in scores.tolist()]
    if None in sure:
        raise CliError(f"{what.small}: {name}: row {sure.index(None)} tells no confidence")
    labels = np.asarray(data.labels)
    labelled = Labelled(
        np.asarray(sure, np.float64), scores.argmax(1) == labels, theirs.argmax(1) == labels
    )
    return _Judged(labelled, name, softmax, encode)


def _built(source: Path, folder: Path) -> Built:
    copied(source, folder)
    (folder / ESCALATE).unlink(missing_ok=True)  # it is about to be worked out anew
    return build_variant(folder.name, folder, VariantOptions(), with_cases=False)


def _encode(small: Built, big: Built) -> str:
    """A bigger model that takes bytes where the small one takes floats is sent bytes."""
    bytes_for = {t.name for t in big.variant.inputs if t.dtype == "uint8"}
    floats = any(t.name in bytes_for and "float" in t.dtype for t in small.variant.inputs)
    return UINT8 if floats else FP32


def _sent(data: Data, encode: str) -> Data:
    try:
        inputs: Mapping[str, Array] = {n: encoded(a, encode) for n, a in data.inputs.items()}
    except ValueError as e:
        raise CliError(f"{data.path}: {e}") from e
    return Data(data.path, data.sha256, inputs, data.labels)


def _scores(agent: str, made: Built, data: Data, chosen: str | None) -> tuple[Array, str]:
    """Return the scores of each input, and the name of their output. Raises `CliError`."""
    try:
        answers = answers_of(agent, made, data.inputs, _TIMEOUT_S)
    except DoesNotRun as e:
        raise CliError(f"the {made.variant.name} model cannot be judged: {e}") from e
    if not answers.finite():
        raise CliError(f"the {made.variant.name} model answers some inputs with NaN or infinity")
    name = judged_output(answers, chosen)
    check_classes(data, answers.outputs[name].shape[1], name)
    return answers.outputs[name], name


def _are_probabilities(scores: Array) -> bool:
    sums = scores.astype(np.float64).sum(axis=1)
    return bool((scores >= 0).all() and (np.abs(sums - 1) < 1e-2).all())


def _decimal(number: float) -> str:
    return f"{number:.9f}".rstrip("0").rstrip(".")


def _tell(data: Labelled, said: Escalation, threshold: float, folder: Path) -> None:
    output.say(
        f"inputs with a {said.rule} below {said.threshold} are escalated: "
        f"{data.share(threshold):.1%} of {data.rows}"
    )
    output.say(
        f"right: {data.small.mean():.1%} by the small model, {data.big.mean():.1%} by the bigger "
        f"one, {data.right(threshold):.1%} by both together"
    )
    if said.promise is None:
        output.say(f"no promise: the threshold moves to keep to {float(said.budget.share):.1%}")
    else:
        excess, sure = float(said.promise.excess), 1 - float(said.promise.delta)
        output.say(
            f"promise: at most {excess:.1%} of inputs are wrong that the bigger model would get "
            f"right (confidence {sure:.0%}), as long as inputs are like these"
        )
    output.say(f"wrote {folder / ESCALATE}; publish the folder that it lies in")
