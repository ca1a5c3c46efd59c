"""What `pilotwave learn plan` may be told, beside which model it is for."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from pilotwave_protocol.learning.device_plan import SCOPE
from pilotwave_protocol.learning.plan import LEAST_EXAMPLES, MAX_ROUNDS, Aggregate, Method
from pilotwave_protocol.learning.privacy import LEAST_GROUP, MOST_GROUP, USUAL_GROUP


class Scope(str, Enum):
    """For whom is learnt."""

    FLEET = "fleet"
    DEVICE = SCOPE


@dataclass(frozen=True)
class PlanOptions:
    """What a plan says."""

    base: Annotated[str, typer.Option("--base", help="The version that devices run.")]
    variant: Annotated[str, typer.Option("--variant", help="Its variant.")]
    file: Annotated[Path, typer.Option("--file", help="The variant's file or folder, here.")]
    embedding: Annotated[str, typer.Option("--embedding", help="The output before the last layer.")]
    evaluate: Annotated[Path, typer.Option("--evaluate", help="Your own labelled inputs, as .npz.")]
    scope: Annotated[Scope, typer.Option(help="The fleet learns, or each device for itself.")] = (
        Scope.FLEET
    )
    lasts: Annotated[
        str | None, typer.Option("--for", help="How long it holds: 7d; for itself 90d.")
    ] = None
    least_devices: Annotated[int, typer.Option(min=3, help="Devices that it takes.")] = 10
    least_examples: Annotated[
        int | None,
        typer.Option(min=LEAST_EXAMPLES, help="Examples that a device needs: 20; for itself 60."),
    ] = None
    most_examples: Annotated[
        int | None,
        typer.Option(
            min=LEAST_EXAMPLES, help="Examples that count of one device: 200; for itself 1000."
        ),
    ] = None
    label_source: Annotated[
        list[str] | None,
        typer.Option(help="Count labels from here alone: operator. May be repeated."),
    ] = None
    penalty: Annotated[str, typer.Option(help="Ridge penalty.")] = "1"
    method: Annotated[Method, typer.Option(help="In one round, or by gradient steps in many.")] = (
        Method.RIDGE
    )
    aggregate: Annotated[
        Aggregate | None, typer.Option(help="How the server makes one result of many updates.")
    ] = None
    rounds: Annotated[int, typer.Option(min=1, max=MAX_ROUNDS, help="Rounds of sgd.")] = 30
    epochs: Annotated[int, typer.Option(min=1, help="Passes over its examples in a round.")] = 5
    rate: Annotated[str | None, typer.Option(help="Step size of sgd.")] = None
    clip: Annotated[
        str | None, typer.Option(help="The longest embedding (ridge) or change (sgd) that counts.")
    ] = None
    epsilon: Annotated[
        str | None, typer.Option(help="Privacy noise with this promise for each device.")
    ] = None
    delta: Annotated[str, typer.Option(help="How likely the promise may fail.")] = "1e-6"
    distance: Annotated[
        str | None, typer.Option(help="How long what a device adds for itself may be.")
    ] = None
    least_gain: Annotated[
        str, typer.Option(help="By which share a device must be right more often with it.")
    ] = "0.02"
    golden: Annotated[
        str, typer.Option(help="The share of golden cases that must keep their class with it.")
    ] = "0.95"
    masked: Annotated[
        bool, typer.Option("--masked", help="The server sees sums of groups of devices alone.")
    ] = False
    group_size: Annotated[
        int,
        typer.Option(min=LEAST_GROUP, max=MOST_GROUP, help="Devices in a group, with --masked."),
    ] = USUAL_GROUP
