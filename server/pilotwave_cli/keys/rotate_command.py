"""`pilotwave keys rotate` and `pilotwave renew`: other keys, or a fresh expiry, without a gap.

Which documents that takes, and in which order, is decided in `rotation_drafts.py`.
"""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Any

import typer
from securesystemslib.signer import Key, Signer
from tuf.api.metadata import Metadata, Role, Root, Targets

from pilotwave_cli import output
from pilotwave_cli.client import Api, connect
from pilotwave_cli.errors import CliError, Failed
from pilotwave_cli.keys import drafts, reset_model, rotation_drafts
from pilotwave_cli.keys.drafts import Draft, now
from pilotwave_cli.keys.key_options import (
    Dir,
    KeyFiles,
    Out,
    PassphraseFile,
    SigningOptions,
)
from pilotwave_cli.keys.keyfiles import load_keys, make_key
from pilotwave_cli.keys.sign_and_submit import complete, signers_for
from pilotwave_cli.options import spread
from pilotwave_protocol import names
from pilotwave_protocol.signing import RoleKeys

MOST_RENEWALS = 1000


class Holder(str, Enum):
    """Whose keys are rotated."""

    ROOT = "root"
    TARGETS = "targets"
    PUBLISHER = "publisher"
    ONLINE = "online"
    DIRECTOR = "director"


def rotate(
    which: Annotated[Holder, typer.Argument(help="Whose keys.")],
    model: Annotated[str | None, typer.Option(help="Model, for publisher.")] = None,
    key: KeyFiles = None,
    new: Annotated[
        list[str] | None,
        typer.Option("--new", help="Existing files to use as new keys. [default: create them]"),
    ] = None,
    threshold: Annotated[int | None, typer.Option(min=1, max=16)] = None,
    keep_old: Annotated[
        bool,
        typer.Option(
            "--keep-old", help="director: keep the old key valid for now; never a stolen one."
        ),
    ] = False,
    retire_old: Annotated[
        bool,
        typer.Option(
            "--retire-old", help="director: remove the old key that --keep-old left valid."
        ),
    ] = False,
    fresh_key: Annotated[
        bool,
        typer.Option(
            "--fresh-key",
            help="online, director: make another key even if one waits; for a stolen server.",
        ),
    ] = False,
    reset: Annotated[
        bool,
        typer.Option("--reset", help="publisher: also clear what the old key signed since --good."),
    ] = False,
    good: Annotated[
        int | None,
        typer.Option(min=1, help="With --reset: the last document that the owner signed."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Reset without asking.")] = False,
    folder: Dir = None,
    plain: Annotated[
        bool, typer.Option("--plain", help="Create the new keys without a passphrase.")
    ] = False,
    passphrase_file: PassphraseFile = None,
    out: Out = None,
) -> None:
    """Replace a role's keys without a gap for any device."""
    sign = SigningOptions(folder, passphrase_file, out)
    if (which is Holder.PUBLISHER) != (model is not None):
        raise CliError("--model goes with `rotate publisher`, and only with it")
    if (keep_old or retire_old) and which is not Holder.DIRECTOR:
        raise CliError(
            "--keep-old and --retire-old go with `rotate director`; the others drop the old key"
        )
    if retire_old and (keep_old or fresh_key):
        raise CliError("--retire-old goes alone: it makes no key")
    if fresh_key and which not in (Holder.ONLINE, Holder.DIRECTOR):
        raise CliError("--fresh-key goes with `rotate online` and `rotate director`")
    if (reset or good) and which is not Holder.PUBLISHER:
        raise CliError("--reset and --good go with `rotate publisher`, and only with it")
    fresh: list[Signer] = []
    with connect() as api:
        document = reset_model.chosen(api, model, good) if reset and model else None
        root, targets = drafts.fetch_root(api), drafts.fetch_targets(api)
        if which is Holder.ONLINE:
            draft = _online(api, root, fresh_key)
        elif which is Holder.DIRECTOR:
            staged = _retiring(api, targets) if retire_old else _staged(api, "director", fresh_key)
            draft = _director(root, targets, staged, keep_old=keep_old)
        else:
            held = _held(root, targets, which, model)
            fresh = _new_keys(new, which, held, plain, sign)
            holders = _role_keys(fresh, threshold or held.threshold)
            draft = _offline(api, root, targets, which, model, holders)
            if document is not None and model is not None:
                reset_model.ask(reset_model.reset(draft, model, document, now()), model, yes=yes)
        signers = signers_for([draft], key, sign, which.value, besides=fresh)
        done = complete(api, draft, signers, out, spare=sign.spare(which.value))
    if done:
        old = "listed until --retire-old" if keep_old else "no longer valid"
        output.say(f"{which.value} keys are rotated; the old one is {old}")


def _staged(api: Api, kind: str, fresh_key: bool) -> Any:
    """Return the server's key that shall follow, as it describes it."""
    return api.post(f"/trust/{kind}-key", fresh="true" if fresh_key else None)


def _online(api: Api, root: Metadata[Root], fresh_key: bool) -> Draft:
    staged = _staged(api, "online", fresh_key)
    key = Key.from_dict(staged["keyid"], dict(staged["key"]))
    return rotation_drafts.rotate_online(root, key, now())


def _retiring(api: Api, targets: Metadata[Targets]) -> Any:
    """Return the newest listed director key, which is to stay alone."""
    listed = rotation_drafts.director_of(targets.signed).keys
    if len(listed) < 2:
        raise Failed("there is no old director key to retire; only --keep-old leaves one listed")
    held = api.get("/trust/server-keys")["director"]
    return [key for key in held if key["keyid"] in listed][-1]


def _director(
    root: Metadata[Root], targets: Metadata[Targets], staged: Any, *, keep_old: bool
) -> Draft:
    public = bytes.fromhex(staged["public"])
    try:
        return rotation_drafts.rotate_director(root, targets, public, now(), keep_old=keep_old)
    except ValueError as e:
        raise CliError(str(e)) from e


def _held(
    root: Metadata[Root], targets: Metadata[Targets], which: Holder, model: str | None
) -> Role:
    """Return the role whose keys are to be replaced."""
    if model is None:
        return root.signed.roles[which.value]
    role = delegated(targets).get(names.role_for_model(model))
    if role is None:
        raise CliError(
            f"there is no model {model}; "
            f"make it with `pilotwave models create {model} --publisher keys/publisher.pem`"
        )
    return role


def _offline(
    api: Api,
    root: Metadata[Root],
    targets: Metadata[Targets],
    which: Holder,
    model: str | None,
    holders: RoleKeys,
) -> Draft:
    if which is Holder.ROOT:
        rotation_drafts.keep_apart(root, targets, "root", holders)
        return rotation_drafts.rotate_root(root, holders, now())
    if model is None:
        return rotation_drafts.rotate_targets(root, targets, holders, now())
    role = drafts.fetch_role(api, names.role_for_model(model))
    return rotation_drafts.rotate_publisher(root, targets, role, model, holders, now())


def _role_keys(signers: list[Signer], threshold: int) -> RoleKeys:
    try:
        return rotation_drafts.public_keys([s.public_key for s in signers], threshold)
    except ValueError as e:
        raise CliError(str(e)) from e


def _new_keys(
    new: list[str] | None, which: Holder, held: Role, plain: bool, sign: SigningOptions
) -> list[Signer]:
    """Load the new keys, or make as many as there were under the next free numbers."""
    if new:
        return load_keys(new, sign.ask)
    what, passphrase = which.value, None if plain else sign.ask.choose()
    where = sign.keys
    where.mkdir(mode=0o700, parents=True, exist_ok=True)
    taken = {p.stem for p in where.glob(f"{what}*.pem")}
    free = (n for n in range(1, 10_000) if f"{what}-{n}" not in taken)
    made = []
    for _ in held.keyids:
        path = where / f"{what}-{next(free)}.pem"
        made.append(make_key(path, passphrase))
        output.say(f"made {path}")
    return made


def delegated(targets: Metadata[Targets]) -> dict[str, Role]:
    """Return the models' roles of a targets document, by role name."""
    delegations = targets.signed.delegations
    return dict(delegations.roles or {}) if delegations else {}


@spread
def renew(
    role: Annotated[
        list[str] | None, typer.Option("--role", help="root, targets, models-NAME; repeatable.")
    ] = None,
    past: Annotated[
        int | None,
        typer.Option(
            "--past", min=1, help="After a restore: sign until the version exceeds this one."
        ),
    ] = None,
    key: KeyFiles = None,
    *,
    sign: SigningOptions,
) -> None:
    """Renew the expiry of offline roles, all by default; nothing else changes."""
    if past is not None and (len(role or []) != 1 or sign.out is not None):
        raise CliError("--past goes with one --role, and without --out")
    with connect() as api:
        models = delegated(drafts.fetch_targets(api))
        for name in _repeated(api, role or ["root", "targets", *models], past):
            draft = _renewal(api, name)
            target = sign.out.with_stem(f"{sign.out.stem}-{name}") if sign.out else None
            signers = signers_for([draft], key, sign, name)
            if complete(api, draft, signers, target, spare=sign.spare(name)):
                output.say(f"{name} is renewed")


def _repeated(api: Api, names_: list[str], past: int | None) -> list[str]:
    """Name a role as often as it is to be signed."""
    if past is None:
        return names_
    versions = {row["role"]: int(row["version"]) for row in api.get("/status")["roles"]}
    if names_[0] not in versions:
        return names_  # refused with the sentence for an unknown role
    missing = past + 1 - versions[names_[0]]
    if missing > MOST_RENEWALS:
        raise CliError(
            f"{names_[0]} is at {versions[names_[0]]}: {missing} signatures are too many (at most "
            f"{MOST_RENEWALS}); `pilotwave keys rotate online` helps, too"
        )
    if missing < 1:
        raise CliError(f"{names_[0]} is at {versions[names_[0]]} already")
    return names_ * missing


def _renewal(api: Api, name: str) -> Draft:
    """Return the next document of a role, with a fresh expiry and nothing else."""
    root, targets = drafts.fetch_root(api), drafts.fetch_targets(api)
    if name == "root":
        return Draft("/trust/root", root=rotation_drafts.next_root(root, now()), judge=root)
    if name == "targets":
        fresh = rotation_drafts.next_targets(targets, now())
        return Draft("/trust/targets", targets=fresh, judge=root, owner=targets)
    if name in delegated(targets):
        path = f"/models/{names.model_of_role(name)}/metadata"
        role = rotation_drafts.next_role(drafts.fetch_role(api, name), now())
        return Draft(path, roles={name: role}, owner=targets)
    raise CliError(f"there is no role {ascii(name)[:60]}; see `pilotwave keys show`")
