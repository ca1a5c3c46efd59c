"""`pilotwave-server backup` and `restore`: options and answers; the work is `recovery`'s."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from pilotwave_server import setup
from pilotwave_server.clock import utc_now
from pilotwave_server.command_options import (
    Data,
    DatabaseUrl,
    Json,
    PassphraseFile,
    clear_errors,
    print_json,
    show,
)
from pilotwave_server.errors import BadSetting
from pilotwave_server.keystore.choose import open_keys
from pilotwave_server.keystore.folder import FolderKeys
from pilotwave_server.settings import load_settings


@clear_errors
def backup(
    to: Annotated[
        Path, typer.Option("--to", help="New folder, or new file whose name ends with .tar.")
    ],
    passphrase_file: PassphraseFile = None,
    without_keys: Annotated[
        bool, typer.Option("--without-keys", help="Leave the server's keys out.")
    ] = False,
    without_blobs: Annotated[
        bool, typer.Option("--without-blobs", help="Leave the files of models out.")
    ] = False,
    data: Data = None,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """Back up database, model files and keys, while the server runs. Overwrites nothing."""
    # Imported here: it pulls in TUF, which most other commands do without.
    from pilotwave_server.recovery.command import make_backup, read_passphrase

    passphrase = None if passphrase_file is None else read_passphrase(passphrase_file)
    settings = load_settings(data_dir=data, database_url=database_url)
    setup.preflight(settings)
    with setup.open_database(settings) as db:
        in_folder = isinstance(open_keys(settings, db), FolderKeys)
        if in_folder and without_keys == (passphrase is not None):
            raise BadSetting("give --passphrase-file FILE, which locks the keys, or --without-keys")
        if not in_folder and (without_keys or passphrase is not None):
            raise BadSetting(
                "the keys are in the database, encrypted by the key-encryption key: leave "
                "--passphrase-file and --without-keys out, and keep that key elsewhere"
            )
        lines, found = make_backup(
            db, settings, to, passphrase=passphrase, with_blobs=not without_blobs, now=utc_now()
        )
    if as_json:
        print_json(found.model_dump(mode="json", by_alias=True))
    else:
        show(lines)
    if found.left_out:
        raise typer.Exit(1)


@clear_errors
def restore(
    backup: Annotated[
        Path | None,
        typer.Option("--from", help="Backup to put back first, where nothing is."),
    ] = None,
    passphrase_file: PassphraseFile = None,
    audit: Annotated[
        Path | None,
        typer.Option("--audit", help="Later export of the audit log: list what was lost."),
    ] = None,
    data: Data = None,
    database_url: DatabaseUrl = None,
    by: Annotated[
        int, typer.Option("--by", min=1, max=2**40, help="How far to lift the numbers.")
    ] = 1_000_000,
    as_json: Json = False,
) -> None:
    """Restore a backup: put it back, raise numbers above those devices have seen, sign again."""
    # Imported here: it pulls in TUF, which most other commands do without.
    from pilotwave_server.recovery.command import read_passphrase, restore_backup
    from pilotwave_server.recovery.command import restore as run_restore
    from pilotwave_server.registry.documents import NotBootstrapped

    settings = load_settings(data_dir=data, database_url=database_url)
    put: tuple[list[str], dict[str, Any]] = [], {}
    if backup is not None:
        passphrase = None if passphrase_file is None else read_passphrase(passphrase_file)
        with setup.database_errors(settings):
            put = restore_backup(
                settings, backup, passphrase=passphrase, audit=audit, now=utc_now()
            )
        if not as_json:
            show(put[0])
    elif passphrase_file is not None or audit is not None:
        raise BadSetting("--passphrase-file and --audit go with --from")
    setup.preflight(settings)
    lines, answer = list[str](), dict[str, Any]()
    # a fleet that was put back before its `keys init` has no number to lift
    with setup.open_database(settings) as db, suppress(*[NotBootstrapped] if backup else []):
        lines, answer = run_restore(
            db, settings.data_dir, open_keys(settings, db), by=by, now=utc_now()
        )
    if as_json:
        print_json(put[1] | answer)
    else:
        show(lines)
