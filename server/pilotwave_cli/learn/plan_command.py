"""`pilotwave learn plan`: say what devices may compute, and sign it as the model's publisher."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from tuf.api.metadata import Metadata, Targets

from pilotwave_cli import output
from pilotwave_cli.client import connect
from pilotwave_cli.durations import Duration
from pilotwave_cli.errors import CliError, Failed
from pilotwave_cli.keys.drafts import now
from pilotwave_cli.keys.key_options import KeyFiles, SigningOptions
from pilotwave_cli.keys.submit_role import DoneBefore, find_publisher, submit
from pilotwave_cli.learn.base_version import built_from, check_is_published, judged
from pilotwave_cli.options import spread
from pilotwave_cli.upload import upload_bytes
from pilotwave_protocol import signing
from pilotwave_protocol.digest import sha256_hex
from pilotwave_protocol.errors import BadPlan
from pilotwave_protocol.learning.examples import write_examples
from pilotwave_protocol.learning.plan import (
    LEAST_EXAMPLES,
    Aggregate,
    Base,
    Method,
    TrainingPlan,
    Validation,
    parse_plan,
)

_LONGEST = 0.95
"""The share of the publisher's examples that are not cut: a longer one counts as the longest."""


@dataclass(frozen=True)
class PlanOptions:
    """What a plan says, beside which model it is for."""

    base: Annotated[str, typer.Option("--base", help="The version that devices run.")]
    variant: Annotated[str, typer.Option("--variant", help="Its variant.")]
    file: Annotated[Path, typer.Option("--file", help="The variant's file or folder, here.")]
    embedding: Annotated[str, typer.Option("--embedding", help="The output before the last layer.")]
    evaluate: Annotated[Path, typer.Option("--evaluate", help="Your own labelled inputs, as .npz.")]
    lasts: Annotated[str, typer.Option("--for", help="How long it holds.")] = "7d"
    least_devices: Annotated[int, typer.Option(min=3, help="Devices that it takes.")] = 10
    least_examples: Annotated[
        int, typer.Option(min=LEAST_EXAMPLES, help="Examples that a device needs.")
    ] = LEAST_EXAMPLES
    most_examples: Annotated[
        int, typer.Option(min=LEAST_EXAMPLES, help="Examples that count of one device.")
    ] = 200
    penalty: Annotated[str, typer.Option(help="Ridge penalty.")] = "1"


@spread
def plan(
    model: Annotated[str, typer.Argument(help="The model.")],
    name: Annotated[str, typer.Argument(help="The plan's name.")],
    *,
    what: PlanOptions,
    key: KeyFiles = None,
    sign: SigningOptions,
) -> None:
    """Sign what devices may compute of their labelled examples."""
    with built_from(what.file, what.variant) as made, connect() as api:
        base = Base(
            what.base,
            check_is_published(api, made, model, what.base, what.variant),
            what.variant,
        )
        publisher = find_publisher(api, model, key, sign)
        found = judged(made, what.evaluate, what.embedding)
        file = write_examples(found.embeddings.astype(np.float64), found.labels)
        clip = float(np.quantile(np.linalg.norm(found.embeddings, axis=1), _LONGEST))
        made_plan = TrainingPlan(
            model=model,
            plan=name,
            base=base,
            embedding=what.embedding,
            features=found.embeddings.shape[1],
            classes=found.scores.shape[1],
            method=Method.RIDGE,
            aggregate=Aggregate.LEAVE_ONE_OUT,
            clip=f"{clip:.4g}",
            deadline=(now() + Duration.parse(what.lasts)).replace(microsecond=0),
            penalty=what.penalty,
            least_examples=what.least_examples,
            most_examples=what.most_examples,
            least_devices=what.least_devices,
            validation=Validation(sha256_hex(file), len(file), len(found.labels)),
        )
        raw = _checked(made_plan)
        upload_bytes(api, file)
        upload_bytes(api, raw)
        try:
            done = submit(api, publisher, lambda role: _add(role, model, name, raw), sign.out)
        except DoneBefore:
            raise Failed(f"plan {name} of {model} is signed already") from None
    if done is not None:
        output.say(
            f"plan {name} of {model} is signed: a device sends"
            f" {output.size(made_plan.update_bytes)} at most, of {what.least_examples} examples or"
            f" more; `pilotwave learn start {model} {name} --group GROUP` begins"
        )


def _checked(made: TrainingPlan) -> bytes:
    raw = made.to_bytes()
    try:
        parse_plan(raw)
    except BadPlan as e:
        raise CliError(str(e)) from e
    return raw


def _add(role: Metadata[Targets], model: str, name: str, raw: bytes) -> None:
    policy = signing.policy_of(role.signed, model)
    digest = sha256_hex(raw)
    if policy.plans.get(name) == digest:
        raise DoneBefore
    signing.set_policy(role.signed, model, replace(policy, plans={**policy.plans, name: digest}))


@spread
def drop(
    model: Annotated[str, typer.Argument(help="The model.")],
    name: Annotated[str, typer.Argument(help="The plan's name.")],
    key: KeyFiles = None,
    *,
    sign: SigningOptions,
) -> None:
    """Sign that a plan holds no more: no device computes anything for it."""

    def change(role: Metadata[Targets]) -> None:
        policy = signing.policy_of(role.signed, model)
        if name not in policy.plans:
            raise DoneBefore
        left = {n: digest for n, digest in policy.plans.items() if n != name}
        signing.set_policy(role.signed, model, replace(policy, plans=left))

    with connect() as api:
        publisher = find_publisher(api, model, key, sign)
        try:
            done = submit(api, publisher, change, sign.out)
        except DoneBefore:
            raise Failed(f"{model} has no plan {name}") from None
    if done is not None:
        output.say(f"plan {name} of {model} holds no more")
