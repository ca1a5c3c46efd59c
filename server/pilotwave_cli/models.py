"""`pilotwave models`: named lines of work, and whose key publishes them."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from pilotwave_cli import bytes_and_sites, output
from pilotwave_cli.client import connect
from pilotwave_cli.confirm import sure
from pilotwave_cli.errors import CliError, Failed
from pilotwave_cli.keys import drafts, reset_model, rotation_drafts
from pilotwave_cli.keys.drafts import now
from pilotwave_cli.keys.key_options import KeyFiles, SigningOptions
from pilotwave_cli.keys.keyfiles import load_keys
from pilotwave_cli.keys.rotate_command import delegated
from pilotwave_cli.keys.sign_and_submit import complete, signers_for
from pilotwave_cli.options import spread
from pilotwave_cli.output import Json
from pilotwave_protocol import names

_AGENT = (
    f"{names.AGENT_MODEL} is reserved for the agent itself: whoever holds its publisher key can "
    "replace the program that verifies everything else on every device. Give it a key of its own."
)

cli = typer.Typer(help="List, show, create and reset models.", no_args_is_help=True)


@cli.command("list")
def list_(as_json: Json = False) -> None:
    """List models."""
    with connect() as api:
        rows = list(api.pages("/models"))
    columns: list[output.Column] = [
        ("model", "name"),
        ("newest", "latest"),
        ("versions", "versions"),
        ("role expires", lambda r: output.when(r.get("expires_at"))),
    ]
    output.table("Models", rows, columns, as_json=as_json)


@cli.command("show")
def show(model: Annotated[str, typer.Argument(help="The model.")], as_json: Json = False) -> None:
    """Show a model and its versions."""
    name = names.check_model(model)
    with connect() as api:
        found = api.get(f"/models/{name}")
        versions = list(api.pages(f"/models/{name}/versions", most=200))
        found["bytes"] = bytes_and_sites.sent_of(api, "model", model=name)
    if as_json:
        output.show_json({**found, "versions": versions})
        return
    lines = [(k, v) for k, v in found.items() if k not in ("name", "bytes")]
    output.facts(name, [*lines, ("bytes sent", bytes_and_sites.told(found["bytes"]))])
    show_versions(name, versions)


def show_versions(model: str, rows: list[dict[str, Any]]) -> None:
    """Print a model's versions as a table."""
    columns: list[output.Column] = [
        ("version", "version"),
        ("published", lambda r: output.when(r["published_at"])),
        ("variants", "variants"),
        ("yanked", lambda r: (r["yanked"] or {}).get("reason", "")),
        ("denied", lambda r: (r["denied"] or {}).get("reason", "")),
    ]
    output.table(f"Versions of {model}", rows, columns)


@cli.command("create")
@spread
def create(
    model: Annotated[str, typer.Argument(help="Name of the new model.")],
    publisher: Annotated[
        list[str], typer.Option("--publisher", help="Key of the publisher; repeatable.")
    ],
    threshold: Annotated[
        int, typer.Option(min=1, max=16, help="How many of the keys must sign.")
    ] = 1,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    key: KeyFiles = None,
    *,
    sign: SigningOptions,
) -> None:
    """Create a model and delegate it to its publisher's keys; signed with the targets keys."""
    name = names.check_model(model)
    if name == names.AGENT_MODEL:
        sure(_AGENT, f"Create {name}?", yes=yes)
    owners = load_keys(publisher, sign.ask)
    try:
        holders = rotation_drafts.public_keys([o.public_key for o in owners], threshold)
    except ValueError as e:
        raise CliError(str(e)) from e
    with connect() as api:
        root, targets = drafts.fetch_root(api), drafts.fetch_targets(api)
        if names.role_for_model(name) in delegated(targets):
            raise Failed(f"model {name} is there already")
        draft = rotation_drafts.add_model(root, targets, name, holders, now())
        signers = signers_for([draft], key, sign, "targets", besides=owners)
        done = complete(api, draft, signers, sign.out, spare=sign.spare(f"create-{name}"))
    if done:
        output.say(f"Created model {name}. Only its publisher key can sign versions.")


@cli.command("reset")
@spread
def reset(
    model: Annotated[str, typer.Argument(help="The model.")],
    good: Annotated[
        int | None,
        typer.Option(min=1, help="Version of the last role document that the owner signed."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    key: KeyFiles = None,
    *,
    sign: SigningOptions,
) -> None:
    """Clear floors, yanks and versions that a stolen or mistaken publisher key signed.

    Signed with the targets keys and the publisher's. Rotate a stolen key first, or in the same act:
    `pilotwave keys rotate publisher --model MODEL --reset --good N`.
    """
    name = names.check_model(model)
    with connect() as api:
        document = reset_model.chosen(api, name, good)
        root, targets = drafts.fetch_root(api), drafts.fetch_targets(api)
        role = drafts.fetch_role(api, names.role_for_model(name))
        draft = rotation_drafts.next_pair(root, targets, role, name, now())
        reset_model.ask(reset_model.reset(draft, name, document, now()), name, yes=yes)
        signers = signers_for([draft], key, sign, "targets")
        done = complete(api, draft, signers, sign.out, spare=sign.spare(f"reset-{name}"))
    if done:
        output.say(f"{name} is reset; devices follow when they next read the metadata")
