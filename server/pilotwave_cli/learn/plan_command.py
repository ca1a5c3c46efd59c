"""`pilotwave learn plan`: say what devices may compute, and sign it as the model's publisher."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer
from tuf.api.metadata import Metadata, Targets

from pilotwave_cli import output
from pilotwave_cli.client import connect
from pilotwave_cli.errors import Failed
from pilotwave_cli.keys.drafts import now
from pilotwave_cli.keys.key_options import KeyFiles, SigningOptions
from pilotwave_cli.keys.submit_role import DoneBefore, find_publisher, submit
from pilotwave_cli.learn.base_version import built_from, check_is_published, judged
from pilotwave_cli.learn.make_device_plan import make_device_plan
from pilotwave_cli.learn.make_plan import make_plan
from pilotwave_cli.learn.plan_options import PlanOptions, Scope
from pilotwave_cli.options import spread
from pilotwave_cli.upload import upload_bytes
from pilotwave_protocol import signing
from pilotwave_protocol.digest import sha256_hex
from pilotwave_protocol.learning.device_plan import DevicePlan
from pilotwave_protocol.learning.plan import Base, TrainingPlan


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
        make = make_plan if what.scope is Scope.FLEET else make_device_plan
        made_plan = make(model, name, base, what, found, now())
        for file in (*made_plan.files, made_plan.raw):
            upload_bytes(api, file)
        try:
            done = submit(
                api, publisher, lambda role: _add(role, model, name, made_plan.raw), sign.out
            )
        except DoneBefore:
            raise Failed(f"plan {name} of {model} is signed already") from None
    if done is not None:
        output.say(f"plan {name} of {model} is signed: {_told(made_plan.plan)}")


def _told(plan: TrainingPlan | DevicePlan) -> str:
    least = f"{plan.least_examples} examples or more"
    if isinstance(plan, DevicePlan):
        return (
            f"devices whose owners allow it adapt {plan.base.version} to themselves, with {least};"
            " nothing is sent, and no round is started"
        )
    each = f" in each of {plan.rounds} rounds" if plan.rounds > 1 else ""
    return (
        f"a device sends {output.size(plan.update_bytes)} at most{each}, of {least};"
        f" `pilotwave learn start {plan.model} {plan.plan} --group GROUP` begins"
    )


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
