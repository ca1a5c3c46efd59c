"""`pilotwave-server`: set a server up, run it, look after its database. Talks to no other server.

Results go to stdout, sentences about what went wrong to stderr with exit status 2.
"""

from __future__ import annotations

import os
import shlex
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from pilotwave_protocol.durations import read_duration
from pilotwave_server import backup_commands, build, migrate, openfiles, service_commands, setup
from pilotwave_server.audit.notices import dismiss_notices, list_notices
from pilotwave_server.audit.tables import NoticeRow
from pilotwave_server.blobs.choose import open_store
from pilotwave_server.blobs.port import StoreBroken
from pilotwave_server.clock import utc_now
from pilotwave_server.command_options import (
    Data,
    DatabaseUrl,
    Json,
    TokenFile,
    clear_errors,
    print_json,
)
from pilotwave_server.errors import BadSetting
from pilotwave_server.imports import uncollected
from pilotwave_server.key_commands import keys as key_commands
from pilotwave_server.operators import people
from pilotwave_server.operators import service as operators
from pilotwave_server.operators.roles import Role
from pilotwave_server.settings import Settings, load_settings
from pilotwave_systemd.notify import notify

app = typer.Typer(
    name="pilotwave-server",
    help="The Pilotwave server. Settings also come from the environment: PILOTWAVE_PORT=8600.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(key_commands)


def _say_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"pilotwave-server {build()}")
        raise typer.Exit


@app.callback(
    help="The Pilotwave server. Settings also come from the environment: PILOTWAVE_PORT=8600."
)
def _top(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Show the version and exit.", is_eager=True, callback=_say_version
        ),
    ] = False,
) -> None: ...


@app.command()
@clear_errors
def init(
    fleet: Annotated[str, typer.Option("--fleet", help="The fleet's name, for good.")],
    data: Data = None,
    database_url: DatabaseUrl = None,
    token_file: TokenFile = None,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Port of the printed link and command.")
    ] = None,
    new_keys: Annotated[
        bool,
        typer.Option(
            "--new-keys", help="The server's own keys are lost for good: make others, to rotate in."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Set a server up: folder, keys, database, first admin token. Safe to repeat."""
    settings = load_settings(data_dir=data, database_url=database_url, port=port)
    made = setup.initialise(
        settings, fleet=fleet, now=utc_now(), token_file=token_file, new_keys=new_keys
    )
    shown = made.admin_token if token_file is None else None
    if as_json:
        answer = {"fleet": fleet, "data": str(made.data_dir), "already": made.admin_token is None}
        links = {"login_link": made.login_link} if made.login_link else {}
        print_json(answer | ({"admin_token": shown} if shown else {}) | links)
    elif made.admin_token is None:
        typer.echo(
            f"The fleet {fleet} was set up already; keys, database and tokens are as they were. "
            f"`pilotwave-server new-token --name NAME --data {made.data_dir}` makes a token if the "
            "first one is lost."
        )
    else:
        typer.echo(f"The fleet {fleet} is set up in {made.data_dir}.")
        show_token("The first admin token", shown, token_file)
        typer.echo(
            "The first admin signs in to the web page, once, to set a password, at\n\n"
            f"    {base_url(settings)}{made.login_link}\n"
        )
        if not settings.people_url:
            typer.echo(
                "This is the address if the server is run as below. It listens on PILOTWAVE_PORT, "
                "or where `run --port` says; behind a proxy, set PILOTWAVE_PUBLIC_URL.\n"
            )
        typer.echo(
            f"Next: `{run_command(made.data_dir, database_url, port)}`, then `pilotwave login "
            f"{base_url(settings)}` and `pilotwave keys init` where keys are kept."
        )


def run_command(data_dir: Path, database_url: str | None, port: int | None = None) -> str:
    """The command line that serves what `init` has just made."""
    line = f"pilotwave-server run --data {shlex.quote(str(data_dir))}"
    line += "" if port is None else f" --port {port}"
    # its password is not repeated
    return line if database_url is None else f"{line} --database-url …"


@app.command()
@clear_errors
def run(
    data: Data = None,
    database_url: DatabaseUrl = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port; 0 picks a free one.")] = None,
    workers: Annotated[int | None, typer.Option(help="Server processes.")] = None,
    tls_cert: Annotated[
        Path | None, typer.Option(help="Certificate with its chain: answer HTTPS.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Key of the certificate.")] = None,
) -> None:
    """Serve until interrupted."""
    # Imported here: it pulls in all of the server, which the other commands do without.
    with uncollected():
        from pilotwave_server.serve import serve

    settings = load_settings(
        data_dir=data,
        database_url=database_url,
        host=host,
        port=port,
        workers=workers,
        tls_cert=tls_cert,
        tls_key=tls_key,
    )
    setup.preflight(settings)
    try:
        setup.check_store(settings)
    except StoreBroken as error:  # it may come back, and devices' polls do not need it
        typer.echo(f"pilotwave-server: {error}", err=True)
    serve(settings, listening=say_listening)


def say_listening(url: str) -> None:
    print(f"listening on {url}", flush=True)
    notify("READY=1")


@app.command(name="migrate")
@clear_errors
def migrate_(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what it would do; change nothing.")
    ] = False,
    data: Data = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Migrate the database to this version's schema."""
    settings = load_settings(data_dir=data, database_url=database_url)
    with setup.open_database(settings) as db, db.read() as session:
        before = migrate.current(session)
        stops = migrate.stops_older(session.connection())
    if dry_run:
        typer.echo(f"The database is at {before or 'nothing'}; this version is at {migrate.head()}")
        others = "stop answering: stop them first" if stops else "go on beside it"
        typer.echo(f"Servers of before the migration {others}.")
        return
    with setup.database_errors(settings):
        migrate.upgrade(settings.resolved_database_url)
    if before == migrate.head():
        typer.echo(f"The database is at {before} already.")
    else:
        typer.echo(f"Migrated from {before or 'nothing'} to {migrate.head()}.")
    show_notices(settings)


@app.command()
@clear_errors
def check(data: Data = None, database_url: DatabaseUrl = None, as_json: Json = False) -> None:
    """Check whether a server could run here, without starting it."""
    settings = load_settings(data_dir=data, database_url=database_url)
    fleet, files = setup.preflight(settings), openfiles.reachable()
    store = setup.check_store(settings)
    shortage = openfiles.shortage(files, push_connections=settings.push_connections)
    if as_json:
        answer: dict[str, Any] = {"fleet": fleet, "data": str(settings.data_dir)}
        answer |= {"migration": migrate.head(), "open_files": files, "open_files_warning": shortage}
        told = [f"{row.object} {row.sentence}" for row in read_notices(settings)]
        print_json(answer | {"version": build(), "notices": told, "blobs": store})
    else:
        typer.echo(f"The fleet {fleet} in {settings.data_dir} is ready, at {migrate.head()}.")
        typer.echo(f"Blobs are in {store}.")
        typer.echo(shortage or f"A server process may have {files} files open.")
        show_notices(settings)


@app.command()
@clear_errors
def notices(
    dismiss: Annotated[
        bool, typer.Option("--dismiss", help="Forget them: they were read.")
    ] = False,
    data: Data = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Show what upgrades decided and a person should review."""
    settings = load_settings(data_dir=data, database_url=database_url)
    setup.preflight(settings)
    show_notices(settings)
    if dismiss:
        with setup.open_database(settings) as db, db.write() as session:
            dismiss_notices(session)


def read_notices(settings: Settings) -> list[NoticeRow]:
    with setup.open_database(settings) as db, db.read() as session:
        return list_notices(session)


def show_notices(settings: Settings) -> None:
    for row in read_notices(settings):
        typer.echo(f"Notice: {row.object} {row.sentence}")


@app.command(name="gc")
@clear_errors
def gc(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List what would go and what stays; remove nothing.")
    ] = False,
    keep_versions: Annotated[
        int | None,
        typer.Option("--keep-versions", min=0, help="Instead of the setting; 0 keeps all."),
    ] = None,
    data: Data = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Delete the files of unused versions and of uploads that were never signed."""
    from pilotwave_server.retention.command import list_unneeded, remove_unneeded

    settings = load_settings(data_dir=data, database_url=database_url, keep_versions=keep_versions)
    setup.preflight(settings)
    keep, now = settings.keep_versions, utc_now()
    with setup.open_database(settings) as db:
        if dry_run:
            lines = list_unneeded(db, keep_versions=keep, now=now)
        else:
            blobs = open_store(settings, db)
            lines = remove_unneeded(db, blobs, keep_versions=keep, now=now)
    for line in lines:
        typer.echo(line)


@app.command(name="new-token")
@clear_errors
def new_token(
    name: Annotated[str, typer.Option("--name", help="Whose token, or what for.")],
    role: Annotated[Role, typer.Option("--role", help="What it may do.")] = Role.ADMIN,
    expires_in: Annotated[
        str | None, typer.Option("--expires-in", help="As 90d, 12h, 30m; by default never.")
    ] = None,
    data: Data = None,
    database_url: DatabaseUrl = None,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Create an operator token on the server itself, when no admin token is at hand."""
    settings = load_settings(data_dir=data, database_url=database_url)
    now = utc_now()
    setup.check_token_name(name)
    expires_at = None if expires_in is None else now + duration(expires_in)
    setup.preflight(settings)
    with setup.open_database(settings) as db, db.write() as session:
        issued = operators.issue(
            session, name=name, role=role, actor="server", now=now, expires_at=expires_at
        )
        if token_file is not None:
            setup.write_secret(token_file, issued.plaintext)
    shown = issued.plaintext if token_file is None else None
    if as_json:
        answer = {"name": name, "role": role.value, "id": issued.row.id}
        print_json(answer | ({"token": shown} if shown else {}))
    else:
        show_token(f"The {role.value} token {name}", shown, token_file)


@app.command(name="login-link")
@clear_errors
def login_link(
    name: Annotated[str, typer.Option("--name", help="Whose.")] = setup.FIRST_PERSON,
    data: Data = None,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """Create a one-time login link, to set a new password."""
    settings = load_settings(data_dir=data, database_url=database_url)
    setup.preflight(settings)
    with setup.open_database(settings) as db, db.write() as session:
        row = people.get_person(session, name)
        link = people.make_link(session, row, actor="server", now=utc_now())
    path = setup.login_path(link)
    if as_json:
        print_json({"name": name, "login_link": path, "expires_at": link.expires_at.isoformat()})
    else:
        typer.echo(f"{name} signs in, once, at\n\n    {base_url(settings)}{path}\n")


def base_url(settings: Settings) -> str:
    """Where people reach this server, as far as its settings tell."""
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    scheme = "http" if settings.tls_cert is None else "https"
    return settings.people_url or f"{scheme}://{host}:{settings.port}"


app.command()(backup_commands.backup)
app.command()(backup_commands.restore)
app.command()(service_commands.install)
app.command()(service_commands.uninstall)


def duration(text: str) -> timedelta:
    """`90d`, `12h`, `1h30m`; BadSetting for anything else."""
    seconds = read_duration(text)
    if not seconds:
        raise BadSetting(f"--expires-in: expected a time such as 90d, 12h or 30m; got {text!r}")
    return timedelta(seconds=seconds)


def show_token(what: str, token: str | None, file: Path | None) -> None:
    if token is None:
        typer.echo(f"{what} is in {file}.")
    else:
        typer.echo(f"{what}, shown this once:\n\n    {token}\n")


def main() -> None:
    """Run the program. What it makes is for its own user, whatever folder that is put into."""
    os.umask(0o077)
    app()


if __name__ == "__main__":
    main()
