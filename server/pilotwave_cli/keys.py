"""`pilotwave keys` and `pilotwave renew`: who may sign what.

Offline keys are made and used here, on the holder's machine; the server sees public halves and
signed documents only.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer
from securesystemslib.signer import Key, Signer
from tuf.api.metadata import Role

from pilotwave_cli import documents, output, rotation
from pilotwave_cli.client import Api, connect
from pilotwave_cli.config import keys_dir
from pilotwave_cli.documents import Draft, now
from pilotwave_cli.errors import ApiError, CliError
from pilotwave_cli.keyfiles import Passphrases, find_keys, load_keys, make_key
from pilotwave_cli.output import Json
from pilotwave_protocol import names, signing, strictjson
from pilotwave_protocol.errors import BadJson
from pilotwave_protocol.signing import RoleKeys
from pilotwave_protocol.trust import DirectorKeys

cli = typer.Typer(help="Keys: make, show, rotate, sign, hand in.", no_args_is_help=True)

Dir = Annotated[Path | None, typer.Option("--dir", help="Folder of the keys [PILOTWAVE_KEYS].")]
PassphraseFile = Annotated[
    Path | None, typer.Option(help="A file with the passphrase (or PILOTWAVE_PASSPHRASE).")
]
KeyFiles = Annotated[
    list[Path] | None, typer.Option("--key", help="Key file or reference; repeatable.")
]
Out = Annotated[
    Path | None, typer.Option("--out", help="Write what still lacks signatures to this file.")
]


class Holder(str, Enum):
    """Whose keys are rotated."""

    ROOT = "root"
    TARGETS = "targets"
    PUBLISHER = "publisher"
    ONLINE = "online"
    DIRECTOR = "director"


def add_to(top: typer.Typer) -> None:
    """Add the command that stands at the top."""
    top.command("renew")(renew)


@cli.command("init")
def init(
    folder: Dir = None,
    fleet: Annotated[str | None, typer.Option(help="The fleet's name [the server's].")] = None,
    root_keys: Annotated[int, typer.Option(min=1, max=16)] = 3,
    root_threshold: Annotated[int, typer.Option(min=1, max=16)] = 2,
    targets_keys: Annotated[int, typer.Option(min=1, max=16)] = 3,
    targets_threshold: Annotated[int, typer.Option(min=1, max=16)] = 2,
    plain: Annotated[
        bool, typer.Option("--plain", help="No passphrase; files of mode 0600.")
    ] = False,
    passphrase_file: PassphraseFile = None,
    offline: Annotated[bool, typer.Option("--offline", help="Hand in later.")] = False,
    server_keys: Annotated[
        Path | None, typer.Option(help="The server's public keys, for --offline.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Make root, targets and publisher keys and the fleet's first root of trust."""
    for what, count, threshold in (
        ("root", root_keys, root_threshold),
        ("targets", targets_keys, targets_threshold),
    ):
        if threshold > count:
            raise CliError(f"{what}: {threshold} of {count} keys can never sign")
    online, director = _server_keys(offline, server_keys)
    if fleet is not None and names.check_fleet(fleet) != director.fleet:
        raise CliError(f"the server serves the fleet {director.fleet}, not {fleet}")
    where = folder or keys_dir()
    passphrase = None if plain else Passphrases(passphrase_file).choose()
    where.mkdir(mode=0o700, parents=True, exist_ok=True)
    made = {
        "root": [make_key(where / f"root-{n}.pem", passphrase) for n in range(1, root_keys + 1)],
        "targets": [
            make_key(where / f"targets-{n}.pem", passphrase) for n in range(1, targets_keys + 1)
        ],
        "publisher": [make_key(where / "publisher.pem", passphrase)],
    }
    roles = {
        "root": RoleKeys(_public(made["root"]), root_threshold),
        "targets": RoleKeys(_public(made["targets"]), targets_threshold),
        "snapshot": RoleKeys((online,), 1),
        "timestamp": RoleKeys((online,), 1),
    }
    draft = Draft("/trust/bootstrap", root=signing.make_root(roles, now=now()))
    draft.targets = signing.make_targets(director, now=now())
    draft.sign([*made["root"], *made["targets"]])
    assert draft.root is not None
    (where / "root.json").write_bytes(signing.to_bytes(draft.root))
    if offline:
        draft.write(where / "bootstrap.json")
    else:
        with connect() as api:
            api.post(draft.route, draft.to_body())
    _tell_init(where, root_threshold, targets_threshold, offline, as_json)


def _public(signers: Iterable[Signer]) -> tuple[Key, ...]:
    return tuple(s.public_key for s in signers)


def _server_keys(offline: bool, file: Path | None) -> tuple[Key, DirectorKeys]:
    """Return the server's online key and director keys, from the server or from a file."""
    if offline != (file is not None):
        raise CliError("--offline and --server-keys FILE go together")
    if file is None:
        with connect() as api:
            data = api.get("/trust/server-keys")
    else:
        try:
            data = strictjson.loads(file.read_bytes(), max_bytes=64 << 10)
        except OSError as e:
            raise CliError(f"{file}: cannot be read: {e.strerror}") from e
        except BadJson as e:
            raise CliError(f"{file}: {e}") from e
    try:
        online = data["online"][-1]
        director = data["director"][-1]
        custom = {
            "fleet": data["fleet"],
            "keys": {director["keyid"]: director["public"]},
            "threshold": 1,
        }
        return Key.from_dict(online["keyid"], dict(online["key"])), DirectorKeys.from_custom(custom)
    except (KeyError, IndexError, TypeError, ValueError) as e:
        raise CliError(
            f"expected the server's public keys, as /trust/server-keys gives them: {e}"
        ) from e


def _tell_init(where: Path, root: int, targets: int, offline: bool, as_json: bool) -> None:
    rows = [
        {"file": "root.json", "what": "the public root of trust", "belongs": "to every device"},
        {
            "file": "root-*.pem",
            "what": f"root keys, {root} must sign",
            "belongs": "offline, each with another person",
        },
        {
            "file": "targets-*.pem",
            "what": f"targets keys, {targets} must sign",
            "belongs": "offline, each with another person",
        },
        {
            "file": "publisher.pem",
            "what": "signs versions",
            "belongs": "to the publisher, their CI",
        },
    ]
    if offline:
        rows.append(
            {
                "file": "bootstrap.json",
                "what": "the first documents",
                "belongs": "hand it in: pilotwave keys submit bootstrap.json",
            }
        )
    if as_json:
        output.show_json({"dir": str(where), "files": rows})
        return
    output.table(
        f"Made in {where}", rows, [("file", "file"), ("what", "what"), ("belongs", "belongs")]
    )
    output.say("Online and director keys are the server's own and never leave it.")


@cli.command("show")
def show(as_json: Json = False) -> None:
    """Show who holds which role."""
    with connect() as api:
        root = documents.fetch_root(api).signed
        targets = documents.fetch_targets(api).signed
    rows = [
        {"role": name, "keys": [k[:12] for k in role.keyids], "threshold": role.threshold}
        for name, role in root.roles.items()
    ]
    delegated = (targets.delegations.roles or {}) if targets.delegations else {}
    rows += [
        {"role": name, "keys": [k[:12] for k in role.keyids], "threshold": role.threshold}
        for name, role in delegated.items()
    ]
    director = rotation.director_of(targets)
    rows.append(
        {
            "role": "director",
            "keys": [k[:12] for k in director.keys],
            "threshold": director.threshold,
        }
    )
    if as_json:
        output.show_json(rows)
    else:
        output.table(
            "Who may sign", rows, [("role", "role"), ("keys", "keys"), ("needed", "threshold")]
        )


@cli.command("sign")
def sign(
    file: Annotated[Path, typer.Argument(help="A draft that lacks signatures.")],
    key: Annotated[list[Path], typer.Option("--key", help="Your key file or reference.")],
    passphrase_file: PassphraseFile = None,
) -> None:
    """Add your signature to a draft."""
    draft = Draft.read(file)
    done = draft.sign(load_keys(key, Passphrases(passphrase_file)))
    if not done:
        raise CliError(f"none of these keys may sign anything in {file}")
    draft.write(file)
    for line in done:
        output.say(f"signed {line}")
    for line in draft.missing():
        output.warn(f"still: {line}")


@cli.command("submit")
def submit(file: Annotated[Path, typer.Argument(help="A draft with all its signatures.")]) -> None:
    """Hand a draft in."""
    draft = Draft.read(file)
    with connect() as api:
        _hand_in(api, draft)
    output.say(f"{file} was accepted")


def _hand_in(api: Api, draft: Draft) -> None:
    lacking = draft.missing()
    if lacking:
        raise CliError("; ".join(lacking) + "; let the holders run `pilotwave keys sign`")
    api.post(draft.route, draft.to_body())


def complete(api: Api, drafts: list[Draft], signers: list[Signer], out: Path | None) -> bool:
    """Sign drafts and hand them in, one after the other; False when one had to be written out."""
    for number, draft in enumerate(drafts):
        draft.sign(signers)
        lacking = draft.missing()
        if lacking and out is not None:
            if len(drafts) > 1:
                out = out.with_stem(f"{out.stem}-{number + 1}")
            draft.write(out)
            output.say(f"{out} waits for signatures: {'; '.join(lacking)}")
            return False
        _hand_in(api, draft)
    return True


def holders_of(drafts: Iterable[Draft]) -> set[str]:
    """Return every key id that may sign any of these drafts."""
    return {k for draft in drafts for ids in draft.holders().values() for k in ids}


@cli.command("rotate")
def rotate(
    which: Annotated[Holder, typer.Argument(help="Whose keys.")],
    model: Annotated[str | None, typer.Option(help="The model, for publisher.")] = None,
    key: KeyFiles = None,
    new: Annotated[
        list[Path] | None, typer.Option("--new", help="New key files that exist; else made.")
    ] = None,
    threshold: Annotated[int | None, typer.Option(min=1, max=16)] = None,
    retire_old: Annotated[
        bool, typer.Option("--retire-old", help="director: drop the old key now.")
    ] = False,
    folder: Dir = None,
    plain: Annotated[
        bool, typer.Option("--plain", help="Make new keys without a passphrase.")
    ] = False,
    passphrase_file: PassphraseFile = None,
    out: Out = None,
) -> None:
    """Replace a role's keys without a gap for any device."""
    where, ask = folder or keys_dir(), Passphrases(passphrase_file)
    if (which is Holder.PUBLISHER) != (model is not None):
        raise CliError("--model goes with `rotate publisher`, and only with it")
    fresh: list[Signer] = []
    with connect() as api:
        if which in (Holder.ONLINE, Holder.DIRECTOR):
            drafts = _server_rotation(api, which, retire_old)
        else:
            drafts, fresh = _offline_rotation(api, which, model, new, threshold, where, plain, ask)
        held = holders_of(drafts) - {s.public_key.keyid for s in fresh}
        holders = load_keys(key, ask) if key else find_keys(where, held, ask, which.value)
        done = complete(api, drafts, [*holders, *fresh], out)
    if done:
        listed = which is Holder.DIRECTOR and not retire_old
        old = "listed until --retire-old" if listed else "good for nothing more"
        output.say(f"{which.value} keys are rotated; the old one is {old}")


def _server_rotation(api: Api, which: Holder, retire_old: bool) -> list[Draft]:
    root = documents.fetch_root(api)
    if which is Holder.ONLINE:
        staged = api.post("/trust/online-key")
        return rotation.rotate_online(
            root, Key.from_dict(staged["keyid"], dict(staged["key"])), now()
        )
    targets = documents.fetch_targets(api)
    staged = api.post("/trust/director-key") if not retire_old else _newest_director(api)
    public = bytes.fromhex(staged["public"])
    return rotation.rotate_director(root, targets, public, now(), keep_old=not retire_old)


def _newest_director(api: Api) -> Any:
    return api.get("/trust/server-keys")["director"][-1]


def _offline_rotation(
    api: Api,
    which: Holder,
    model: str | None,
    new: list[Path] | None,
    threshold: int | None,
    where: Path,
    plain: bool,
    ask: Passphrases,
) -> tuple[list[Draft], list[Signer]]:
    root, targets = documents.fetch_root(api), documents.fetch_targets(api)
    if which is Holder.PUBLISHER:
        assert model is not None
        name = names.role_for_model(model)
        delegated = (targets.signed.delegations.roles or {}) if targets.signed.delegations else {}
        if name not in delegated:
            raise CliError(f"there is no model {model}; make it with `pilotwave models create`")
        held: Role = delegated[name]
    else:
        held = root.signed.roles[which.value]
    count = len(held.keyids)
    fresh = load_keys(new, ask) if new else _make_new(where, which.value, count, plain, ask)
    try:
        holders = rotation.public_keys(_public(fresh), threshold or held.threshold)
    except ValueError as e:
        raise CliError(str(e)) from e
    if which is Holder.ROOT:
        return rotation.rotate_root(root, holders, now()), fresh
    if which is Holder.TARGETS:
        return rotation.rotate_targets(root, targets, holders, now()), fresh
    assert model is not None
    role = documents.fetch_role(api, names.role_for_model(model))
    drafts = rotation.rotate_publisher(root, targets, role, model, holders, now())
    return drafts, fresh


def _make_new(where: Path, what: str, count: int, plain: bool, ask: Passphrases) -> list[Signer]:
    """Make key files under the next free numbers of a folder."""
    passphrase = None if plain else ask.choose()
    taken = {p.stem for p in where.glob(f"{what}*.pem")}
    free = (n for n in range(1, 10_000) if f"{what}-{n}" not in taken)
    made = []
    for _ in range(count):
        path = where / f"{what}-{next(free)}.pem"
        made.append(make_key(path, passphrase))
        output.say(f"made {path}")
    return made


def renew(
    role: Annotated[
        list[str] | None, typer.Option("--role", help="root, targets, models-NAME; repeatable.")
    ] = None,
    key: KeyFiles = None,
    folder: Dir = None,
    passphrase_file: PassphraseFile = None,
    out: Out = None,
) -> None:
    """Sign offline roles again, without a change but their expiry (all of them by default)."""
    where, ask = folder or keys_dir(), Passphrases(passphrase_file)
    with connect() as api:
        root, targets = documents.fetch_root(api), documents.fetch_targets(api)
        delegated = (targets.signed.delegations.roles or {}) if targets.signed.delegations else {}
        for name in role or ["root", "targets", *delegated]:
            if name == "root":
                draft = Draft("/trust/root", root=rotation.next_root(root, now()), judge=root)
            elif name == "targets":
                fresh = rotation.next_targets(targets, now())
                draft = Draft("/trust/targets", targets=fresh, judge=root)
            elif name in delegated:
                path = f"/models/{names.model_of_role(name)}/metadata"
                old = documents.fetch_role(api, name)
                draft = Draft(path, roles={name: rotation.next_role(old, now())}, owner=targets)
            else:
                raise CliError(f"there is no role {ascii(name)[:60]}; see `pilotwave keys show`")
            _renew_one(api, name, draft, key, where, ask, out)
            if name == "root" and draft.root is not None:
                root = documents.fetch_root(api)


def _renew_one(
    api: Api,
    name: str,
    draft: Draft,
    key: list[Path] | None,
    where: Path,
    ask: Passphrases,
    out: Path | None,
) -> None:
    signers = load_keys(key, ask) if key else find_keys(where, holders_of([draft]), ask, name)
    draft.sign(signers)
    lacking = draft.missing()
    if lacking and out is not None:
        target = out.with_stem(f"{out.stem}-{name}")
        draft.write(target)
        output.say(f"{target} waits for signatures: {'; '.join(lacking)}")
        return
    if lacking:
        raise CliError("; ".join(lacking) + "; name more keys with --key, or --out FILE to pass on")
    try:
        if draft.roles:
            api.post(draft.route, {"role": documents.plain(draft.roles[name])})
        else:
            api.post(draft.route, draft.to_body())
    except ApiError as e:
        if e.problem == "version_clash":
            raise CliError(f"{name} was changed by somebody else just now; run it again") from e
        raise
    output.say(f"{name} is renewed")
