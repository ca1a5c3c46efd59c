"""`pilotwave versions`: look at releases, yank (publisher), deny (operator)."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

import typer
from tuf.api.metadata import Metadata, Targets

from pilotwave_cli import bytes_and_sites, output
from pilotwave_cli.client import Api, connect, twice
from pilotwave_cli.confirm import Yes, count, sure
from pilotwave_cli.errors import Failed
from pilotwave_cli.keys.drafts import now
from pilotwave_cli.keys.key_options import KeyFiles, SigningOptions
from pilotwave_cli.keys.submit_role import Change, DoneBefore, Publisher, find_publisher, submit
from pilotwave_cli.models import show_versions
from pilotwave_cli.options import spread
from pilotwave_cli.output import Json
from pilotwave_protocol import names, signing

cli = typer.Typer(
    help="List, show, yank and deny versions; set the oldest allowed.", no_args_is_help=True
)
Model = Annotated[str, typer.Argument(help="The model.")]
Version = Annotated[str, typer.Argument(help="The version.")]
Reason = Annotated[str, typer.Option("--reason", help="Reason, shown to devices and operators.")]


@cli.command("list")
def list_(model: Model, as_json: Json = False) -> None:
    """List a model's versions, newest first."""
    with connect() as api:
        rows = list(api.pages(f"/models/{names.check_model(model)}/versions"))
    if as_json:
        output.show_json(rows)
    else:
        show_versions(model, rows)


@cli.command("show")
def show(model: Model, version: Version, as_json: Json = False) -> None:
    """Show one version: variants, files, who signed it."""
    path = f"/models/{names.check_model(model)}/versions/{names.check_version(version)}"
    with connect() as api:
        found = api.get(path)
        found["bytes"] = bytes_and_sites.sent_of(api, "version", model=model, version=version)
    if as_json:
        output.show_json(found)
        return
    hidden = {"model", "version", "target", "variants"}
    lines = [(k, _shown(k, v)) for k, v in found.items() if k not in hidden]
    output.facts(f"{model} {version}", lines)
    for variant in found["variants"]:
        hidden = {"name", "files"}
        lines = [(k, _shown(k, v)) for k, v in variant.items() if k not in hidden]
        output.facts(f"variant {variant['name']}", lines)
        columns: list[output.Column] = [
            ("file", "path"),
            ("size", lambda r: output.size(r["size"])),
            ("sha256", "sha256"),
        ]
        output.table("", variant["files"], columns)


def _shown(key: str, value: Any) -> object:
    """Show a field of a version or variant as people say it."""
    if value is None:
        return None
    if key in ("inputs", "outputs"):
        return output.tensors(value)
    if key == "bytes":
        return bytes_and_sites.told(value)
    if key == "requires":
        return _required(value)
    if key in ("size", "length"):
        return output.size(value)
    if key.endswith("_at"):
        return output.when(value)
    if key in ("yanked", "denied"):
        by = f" by {value['by']}" if value.get("by") else ""
        return f"{value['reason']} ({output.when(value['at'])}{by})"
    if isinstance(value, dict):
        return {k: v for k, v in value.items() if v not in (None, [], "")}
    return value


def _required(value: dict[str, Any]) -> str:
    """Show what a device must have: `cpu.avx_vnni or cpu.dotprod; fact.app >=2`."""
    words = [" or ".join(value.get("cpu_any") or [])]
    words += [f"fact.{key} {asked}" for key, asked in (value.get("facts") or {}).items()]
    rest = {k: v for k, v in value.items() if k not in ("cpu_any", "facts") and v}
    words += [
        f"{k} {' or '.join(v) if isinstance(v, list) else v}" for k, v in sorted(rest.items())
    ]
    return "; ".join(filter(None, words))


@cli.command("yank")
@spread
def yank(
    model: Model,
    version: Version,
    reason: Reason,
    yes: Yes = False,
    key: KeyFiles = None,
    *,
    sign: SigningOptions,
) -> None:
    """Sign that a version must not be used any more; devices remember that for ever."""
    names.check_version(version)
    path = names.target_path(model, version)

    def change(role: Metadata[Targets]) -> None:
        found = role.signed.targets.get(path)
        if found is None:
            raise Failed(f"{model} {version} is not published, so it cannot be yanked")
        if "yanked" in found.custom:
            raise DoneBefore
        signing.yank(role.signed, model, version, reason=reason, now=now())

    told = f"Every device of the fleet leaves {model} {version} and refuses it for ever."
    with connect() as api:
        api.get(f"/models/{names.check_model(model)}/versions/{version}")
        sure(told, f"Yank {model} {version}?", yes=yes)
        publisher = find_publisher(api, model, key, sign)
        known = f"{model} {version} is already yanked; a yank cannot be undone"
        done = _submit_news(api, publisher, change, sign, done_before=known)
    if done:
        output.say(f"{model} {version} is yanked; devices that run it leave it")


@cli.command("floor")
@spread
def floor(
    model: Model,
    version: Version,
    prune: Annotated[
        bool, typer.Option("--prune", help="Also take the versions below it off the role's list.")
    ] = False,
    yes: Yes = False,
    key: KeyFiles = None,
    *,
    sign: SigningOptions,
) -> None:
    """Sign that no version older than this one may run; devices remember that for ever."""
    names.check_version(version)
    path = names.target_path(model, version)

    def change(role: Metadata[Targets]) -> None:
        found = role.signed.targets.get(path)
        if found is None:
            raise Failed(f"{model} {version} is not published, so it cannot be the oldest one")
        known = signing.policy_of(role.signed, model)
        counter = int(found.custom["counter"])
        if counter < known.floor:
            raise Failed(f"the floor of {model} is above {version} already; it never falls")
        below = signing.versions_below(role.signed, model, counter) if prune else []
        if counter == known.floor and not below:
            raise DoneBefore
        signing.set_policy(role.signed, model, replace(known, floor=counter))
        for old in below:
            del role.signed.targets[old]

    told = f"Every device refuses all versions of {model} before {version}, for ever."
    with connect() as api:
        api.get(f"/models/{names.check_model(model)}/versions/{version}")
        sure(told, f"Make {version} the oldest?", yes=yes)
        publisher = find_publisher(api, model, key, sign)
        known = f"{version} is the oldest version of {model} already"
        done = _submit_news(api, publisher, change, sign, done_before=known)
    if done:
        output.say(f"{model} {version} is the oldest version that devices may run")


def _submit_news(
    api: Api, publisher: Publisher, change: Change, sign: SigningOptions, *, done_before: str
) -> bool:
    """Hand a change of the role in; False: its draft was written for others to sign."""
    try:
        return submit(api, publisher, change, sign.out) is not None
    except DoneBefore:
        raise Failed(done_before) from None


@cli.command("deny")
def deny(model: Model, version: Version, reason: Reason, yes: Yes = False) -> None:
    """Stop offering a version to anyone, at once and without a key."""
    told = f"No device of the fleet is offered {model} {version} until you undeny it."
    path = f"/models/{names.check_model(model)}/versions/{names.check_version(version)}"
    with connect() as api:
        api.get(path)
        sure(told, f"Deny {model} {version}?", yes=yes)
        api.post(f"{path}/deny", {"reason": reason}, done=twice)
    output.say(f"denied {model} {version}; no device is offered it")


@cli.command("purge")
def purge(model: Model, version: Version, reason: Reason, yes: Yes = False) -> None:
    """Remove a version's bytes from the server for good."""
    path = f"/models/{names.check_model(model)}/versions/{names.check_version(version)}"
    with connect() as api:
        api.get(path)
        running = api.get("/device-count", model=model, version=version)["devices"]
        told = f"{count(running)} {'runs' if running == 1 else 'run'} {model} {version}; they are"
        told += " given the version before. The bytes are removed for good; the record stays."
        sure(told, f"Purge {model} {version}?", yes=yes)
        done = api.post(f"{path}/purge", {"reason": reason})
    files = "1 file" if done["blobs"] == 1 else f"{done['blobs']} files"
    output.say(f"purged {model} {version}: {files}, {output.size(done['bytes'])}")


@cli.command("readmit")
def readmit(
    model: Model,
    version: Version,
    reason: Reason,
    file: Annotated[
        list[str] | None, typer.Option("--file", help="Path of a file in it. Default: all files.")
    ] = None,
) -> None:
    """Let bytes that were purged with a version be published again, in another version."""
    path = f"/models/{names.check_model(model)}/versions/{names.check_version(version)}"
    with connect() as api:
        done = api.post(f"{path}/readmit", {"reason": reason, "files": file or None})
    number = len(done["blobs"])
    files = "1 file" if number == 1 else f"{number} files"
    output.say(f"{files} of {model} {version} may be published again; the version stays purged")


@cli.command("undeny")
def undeny(model: Model, version: Version) -> None:
    """Let a denied version be offered again."""
    path = f"/models/{names.check_model(model)}/versions/{names.check_version(version)}/deny"
    with connect() as api:
        api.delete(path)
    output.say(f"{model} {version} may be offered again")
