"""`pilotwave-server keys`: where this fleet's server keys lie, and the keys of device tokens."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from pilotwave_server import setup
from pilotwave_server.command_options import Data, DatabaseUrl, clear_errors
from pilotwave_server.settings import load_settings

keys = typer.Typer(
    name="keys", help="Move, encrypt and renew the server's own keys.", no_args_is_help=True
)


class Place(str, Enum):
    DATABASE = "database"
    FOLDER = "folder"


@keys.command(name="move")
@clear_errors
def move_(
    to: Annotated[
        Place, typer.Option("--to", help="The database, which hosts share, or the data folder.")
    ] = Place.DATABASE,
    data: Data = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Move the server keys between data folder and database. Stop the server first."""
    # Imported here: it pulls in TUF, which most other commands do without.
    from pilotwave_server.keystore.choose import move

    settings = load_settings(data_dir=data, database_url=database_url)
    with setup.open_database(settings) as db:
        moved = move(settings, db, to_database=to is Place.DATABASE)
    typer.echo(f"Moved to the {to.value}: {', '.join(moved)}.")


@keys.command(name="encrypt")
@clear_errors
def encrypt(
    old_key_file: Annotated[
        Path, typer.Option("--old-key-file", help="File with the key-encryption key until now.")
    ],
    data: Data = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Encrypt the keys in the database with the key that is set, instead of the old one."""
    from pilotwave_server.keystore.choose import encrypt_anew
    from pilotwave_server.keystore.encryption import key_file_encryption

    settings = load_settings(data_dir=data, database_url=database_url)
    with setup.open_database(settings) as db:
        count = encrypt_anew(settings, db, key_file_encryption(old_key_file))
    typer.echo(f"Encrypted {count} keys with the key-encryption key that is set.")


@keys.command(name="new-token-key")
@clear_errors
def new_token_key_(
    stolen: Annotated[
        bool,
        typer.Option(
            "--stolen", help="End every token at once: each device checks in for another."
        ),
    ] = False,
    data: Data = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Make another key for device tokens and links. Running servers take it within seconds."""
    from pilotwave_server.device_api.tokens import new_token_key
    from pilotwave_server.keystore.choose import open_keys

    settings = load_settings(data_dir=data, database_url=database_url)
    setup.preflight(settings)
    with setup.open_database(settings) as db:
        new_token_key(open_keys(settings, db), stolen=stolen)
    typer.echo("Made a new key for device tokens. Running servers take it within 10 seconds.")
