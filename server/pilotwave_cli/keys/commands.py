"""`pilotwave keys`: who may sign what; making keys, signing drafts, handing them in.

Offline keys are made and used here, on the holder's machine; the server sees public halves and
signed documents only. Rotation and renewal are `rotating.py`.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer
from securesystemslib.signer import Key, Signer
from tuf.api.metadata import Role, Root, Targets

from pilotwave_cli import output
from pilotwave_cli.client import connect
from pilotwave_cli.config import keys_dir
from pilotwave_cli.errors import CliError, Failed
from pilotwave_cli.keys import drafts, rotate_command, rotation_drafts
from pilotwave_cli.keys.describe_draft import describe
from pilotwave_cli.keys.drafts import Draft, now
from pilotwave_cli.keys.key_options import Dir, PassphraseFile
from pilotwave_cli.keys.keyfiles import Passphrases, load_keys, make_key, make_reference
from pilotwave_cli.keys.reader import make_reader
from pilotwave_cli.keys.sign_and_submit import hand_in
from pilotwave_cli.output import Json
from pilotwave_protocol import names, signing, strictjson
from pilotwave_protocol.errors import BadJson
from pilotwave_protocol.signing import RoleKeys
from pilotwave_protocol.trust import DirectorKeys

cli = typer.Typer(help="Create, show, rotate and use signing keys.", no_args_is_help=True)


def add_to(top: typer.Typer) -> None:
    """Add the command that stands at the top."""
    top.command("renew")(rotate_command.renew)


cli.command("reader")(make_reader)


@cli.command("init")
def init(
    folder: Dir = None,
    fleet: Annotated[str | None, typer.Option(help="The fleet's name [the server's].")] = None,
    root_keys: Annotated[int, typer.Option(min=1, max=16)] = 3,
    root_threshold: Annotated[int, typer.Option(min=1, max=16)] = 2,
    targets_keys: Annotated[int, typer.Option(min=1, max=16)] = 3,
    targets_threshold: Annotated[int, typer.Option(min=1, max=16)] = 2,
    plain: Annotated[
        bool, typer.Option("--plain", help="No passphrase; the files get mode 0600.")
    ] = False,
    passphrase_file: PassphraseFile = None,
    offline: Annotated[
        bool,
        typer.Option(
            "--offline", help="Only write the files; submit them later with `keys submit`."
        ),
    ] = False,
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
    if plain and passphrase_file is not None:
        raise CliError("use --plain or --passphrase-file, not both")
    online, director = _server_keys(offline, server_keys)
    if fleet is not None and names.check_fleet(fleet) != director.fleet:
        raise CliError(f"the server serves the fleet {director.fleet}, not {fleet}")
    where = folder or keys_dir()
    draft_file = where / "bootstrap.json"
    files = {
        "root": [where / f"root-{n}.pem" for n in range(1, root_keys + 1)],
        "targets": [where / f"targets-{n}.pem" for n in range(1, targets_keys + 1)],
        "publisher": [where / "publisher.pem"],
    }
    _refuse_existing([*(p for paths in files.values() for p in paths), draft_file])
    passphrase = None if plain else Passphrases(passphrase_file).choose()
    where.mkdir(mode=0o700, parents=True, exist_ok=True)
    made = {what: [make_key(p, passphrase) for p in paths] for what, paths in files.items()}
    roles = {
        "root": RoleKeys(_public(made["root"]), root_threshold),
        "targets": RoleKeys(_public(made["targets"]), targets_threshold),
        "snapshot": RoleKeys((online,), 1),
        "timestamp": RoleKeys((online,), 1),
    }
    root = signing.make_root(roles, now=now())
    draft = Draft("/trust/bootstrap", root=root)
    draft.targets = signing.make_targets(director, now=now())
    draft.sign([*made["root"], *made["targets"]])
    (where / "root.json").write_bytes(signing.to_bytes(root))
    draft.write(draft_file)
    if not offline:
        _bootstrap(draft, draft_file)
    _tell_init(where, root_threshold, targets_threshold, offline, as_json)


def _refuse_existing(paths: Iterable[Path]) -> None:
    for path in paths:
        if path.exists():
            raise CliError(f"{path}: exists already; move it away, or choose another --dir")


def _bootstrap(draft: Draft, draft_file: Path) -> None:
    """Hand the first documents in; their file stays until the server has them."""
    try:
        with connect() as api:
            hand_in(api, draft)
    except Failed as e:
        again = f"created the keys; later run `pilotwave keys submit {draft_file}`"
        raise Failed(f"{e}; {again}") from e
    draft_file.unlink()


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
        if any(key["trusted"] for key in data["online"]):
            raise Failed(
                "this fleet has its root of trust already; `pilotwave keys rotate --help` says how "
                "its keys are changed"
            )
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
            "belongs": "offline, each held by another person",
        },
        {
            "file": "targets-*.pem",
            "what": f"targets keys, {targets} must sign",
            "belongs": "offline, each held by another person",
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
                "belongs": "submit it: pilotwave keys submit bootstrap.json",
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
def show(
    file: Annotated[
        Path | None,
        typer.Argument(help="A draft, or a document as root.json; without it, the fleet's roles."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show who holds which role, or what a draft would change."""
    document = None if file is None else drafts.read_document(file)
    if document is not None:
        _show_roles(_rows(document.signed), as_json)
    elif file is not None:
        _show_draft(Draft.read(file), as_json)
    else:
        with connect() as api:
            root, targets = drafts.fetch_root(api), drafts.fetch_targets(api)
        _show_roles([*_rows(root.signed), *_rows(targets.signed)], as_json)


def _rows(document: Root | Targets) -> list[dict[str, Any]]:
    """Return who may sign what, as far as one document says it."""
    if isinstance(document, Root):
        roles: dict[str, Role] = dict(document.roles)
    else:
        delegations = document.delegations
        roles = dict((delegations.roles if delegations else None) or {})
    rows = [
        {"role": name, "keys": list(role.keyids), "threshold": role.threshold}
        for name, role in roles.items()
    ]
    if isinstance(document, Targets) and names.DIRECTOR_PATH in document.targets:
        found = rotation_drafts.director_of(document)
        rows.append({"role": "director", "keys": list(found.keys), "threshold": found.threshold})
    return rows


def _show_roles(rows: list[dict[str, Any]], as_json: bool) -> None:
    columns: list[output.Column] = [
        ("role", "role"),
        ("keys", lambda r: ", ".join(k[:12] for k in r["keys"])),
        ("needed", "threshold"),
    ]
    output.table("Who may sign", rows, columns, as_json=as_json)


def _show_draft(draft: Draft, as_json: bool) -> None:
    lines, lacking = describe(draft), draft.missing()
    if as_json:
        holders = {name: sorted(ids) for name, ids in draft.holders().items()}
        output.show_json({"changes": lines, "missing": lacking, "holders": holders})
        return
    for line in lines:
        output.say(line)
    for line in lacking or ["it has all its signatures"]:
        output.say(line)


@cli.command("reference")
def reference(
    uri: Annotated[str, typer.Argument(help="gcpkms:, awskms:, azurekms:, hsm:, hv: ...")],
    public_key: Annotated[Path, typer.Option(help="Public key of it, PEM.")],
    out: Annotated[Path, typer.Option("--out", help="File to write: NAME.key.json.")],
    passphrase_file: PassphraseFile = None,
) -> None:
    """Create a reference to a key in a KMS or token; it works wherever a key file does."""
    key = make_reference(uri, public_key, out, Passphrases(passphrase_file))
    output.say(f"{out} stands for key {key.keyid[:12]}…; a test signature was right")


@cli.command("sign")
def sign(
    file: Annotated[Path, typer.Argument(help="A draft that lacks signatures.")],
    key: Annotated[list[str], typer.Option("--key", help="Your key file, reference or URI.")],
    passphrase_file: PassphraseFile = None,
) -> None:
    """Add your signature to a draft."""
    draft = Draft.read(file)
    for line in describe(draft):
        output.say(line)
    signers = load_keys(key, Passphrases(passphrase_file), list(draft.keys().values()))
    done = draft.sign(signers)
    if not done:
        raise CliError(f"none of these keys may sign anything in {file}")
    draft.write(file)
    for line in done:
        output.say(f"signed {line}")
    for line in draft.missing():
        output.warn(f"still: {line}")


@cli.command("submit")
def submit(file: Annotated[Path, typer.Argument(help="A draft with all its signatures.")]) -> None:
    """Submit a signed draft."""
    draft = Draft.read(file)
    with connect() as api:
        changed = hand_in(api, draft)
    output.say(f"{file} was accepted" if changed else f"{file} was accepted before; no change")


cli.command("rotate")(rotate_command.rotate)
