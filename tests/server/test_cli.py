"""`pilotwave-server`: each command, and the sentence and status 2 for each way it cannot work."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from click.testing import Result
from typer.testing import CliRunner

import pilotwave_server
from pilotwave_server import migrate, openfiles
from pilotwave_server.cli import app
from pilotwave_server.settings import NO_SETTINGS, Settings
from tests.conftest import ServerFactory

API = "/api/v1"


def pw(*words: str | Path, **environment: str) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words], env=environment)


def refused(result: Result) -> str:
    """The one line with which a command refused."""
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("pilotwave-server: ")
    assert result.stderr.count("\n") == 1
    assert "Traceback" not in result.stderr
    return result.stderr


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder that `init` has made."""
    folder = tmp_path / "data"
    assert pw("init", "--data", folder, "--fleet", "berlin").exit_code == 0
    return folder


def test_init_prints_the_first_admin_token_once(tmp_path: Path) -> None:
    first = pw("init", "--data", tmp_path / "data", "--fleet", "berlin")
    assert first.exit_code == 0
    assert first.output.count("pw_") == 1
    again = pw("init", "--data", tmp_path / "data", "--fleet", "berlin")
    assert again.exit_code == 0
    assert "set up already" in again.output
    assert "pw_" not in again.output


def test_init_prints_the_port_that_the_server_listens_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = pw("init", "--data", tmp_path / "a", "--fleet", "berlin", "--port", 9001).output
    assert "http://127.0.0.1:9001/login/link/" in told
    assert f"`pilotwave-server run --data {tmp_path / 'a'} --port 9001`" in told
    monkeypatch.setenv("PILOTWAVE_PORT", "9002")
    told = pw("init", "--data", tmp_path / "b", "--fleet", "berlin").output
    assert "http://127.0.0.1:9002/login/link/" in told
    assert "or where `run --port` says" in told
    monkeypatch.setenv("PILOTWAVE_PUBLIC_URL", "https://fleet.example.org")
    told = pw("init", "--data", tmp_path / "c", "--fleet", "berlin").output
    assert "https://fleet.example.org/login/link/" in told
    assert "run --port" not in told
    # devices may reach the server by another name than people do
    monkeypatch.setenv("PILOTWAVE_PAGE_URL", "http://127.0.0.1:8600")
    told = pw("init", "--data", tmp_path / "d", "--fleet", "berlin").output
    assert "http://127.0.0.1:8600/login/link/" in told


def test_init_makes_what_only_its_owner_can_read(data: Path) -> None:
    assert stat.S_IMODE(data.stat().st_mode) == 0o700
    for key in (data / "keys").glob("*.pem"):
        assert stat.S_IMODE(key.stat().st_mode) == 0o600


def test_a_folder_that_was_open_to_all_gets_no_file_that_is(server_factory: ServerFactory) -> None:
    """The umask is the program's own, so this asks the program, and while it runs."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)  # noqa: S103
        server = server_factory(Path(folder))
        found = {p: stat.S_IMODE(p.stat().st_mode) & 0o077 for p in Path(folder).rglob("*")}
        server.kill()
    assert any(p.name.startswith("pilotwave.db") for p in found)
    assert not {p for p, open_to in found.items() if open_to}


def test_init_works_on_both_databases(
    tmp_path: Path, empty_database_url: str, database_kind: str
) -> None:
    words = ["init", "--data", tmp_path / "data", "--fleet", "berlin", "--json"]
    first = pw(*words, PILOTWAVE_DATABASE_URL=empty_database_url)
    answer = json.loads(first.stdout)
    assert answer["fleet"] == "berlin"
    assert answer["already"] is False
    assert answer["admin_token"].startswith("pw_")
    second = json.loads(pw(*words, PILOTWAVE_DATABASE_URL=empty_database_url).stdout)
    assert second == {"fleet": "berlin", "data": str(tmp_path / "data"), "already": True}


def test_init_writes_the_token_to_a_file_that_only_its_owner_can_read(tmp_path: Path) -> None:
    file = tmp_path / "admin.token"
    made = pw("init", "--data", tmp_path / "data", "--fleet", "berlin", "--token-file", file)
    assert "pw_" not in made.output
    assert file.read_text().startswith("pw_")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_token_file_that_cannot_be_written_leaves_no_token_behind(tmp_path: Path) -> None:
    words = ["init", "--data", tmp_path / "data", "--fleet", "berlin"]
    said = refused(pw(*words, "--token-file", tmp_path / "missing" / "token"))
    assert "token file" in said
    assert "pw_" in pw(*words).output


def test_init_keeps_to_the_fleet_that_is_there(data: Path) -> None:
    said = refused(pw("init", "--data", data, "--fleet", "munich"))
    assert "holds the fleet berlin, not munich" in said


@pytest.mark.parametrize("name", ["", "Berlin", "ber lin", "../x", "a" * 65, "é"])
def test_init_refuses_a_fleet_name_outside_the_pattern(tmp_path: Path, name: str) -> None:
    said = refused(pw("init", "--data", tmp_path / "data", "--fleet", name))
    assert "fleet name: expected" in said
    assert not (tmp_path / "data").exists()


def test_a_data_folder_that_is_not_there_is_named_with_what_to_do(tmp_path: Path) -> None:
    for command in ("run", "check", "new-token"):
        more = ["--name", "x"] if command == "new-token" else []
        said = refused(pw(command, "--data", tmp_path / "data", *more))
        assert "pilotwave-server init" in said, command
        assert str(tmp_path / "data") in said, command


def test_a_data_folder_without_a_database_is_named_with_what_to_do(tmp_path: Path) -> None:
    for command in ("run", "check", "migrate"):
        assert "run `pilotwave-server init" in refused(pw(command, "--data", tmp_path)), command
    assert not (tmp_path / "pilotwave.db").exists()


def test_missing_server_keys_are_named_with_what_to_do(data: Path) -> None:
    for key in (data / "keys").glob("director-*"):
        key.unlink()
    assert "no director key" in refused(pw("run", "--data", data))


def test_a_server_key_that_others_can_read_or_that_is_garbage_is_named(data: Path) -> None:
    key = data / "keys" / "online-1.pem"
    key.write_text("garbage")
    assert "online-1.pem" in refused(pw("check", "--data", data))


def test_a_database_that_is_no_database_is_named(data: Path) -> None:
    (data / "pilotwave.db").write_bytes(b"not a database at all" * 1000)
    for side in ("-wal", "-shm"):
        (data / f"pilotwave.db{side}").unlink(missing_ok=True)
    assert "not a database" in refused(pw("run", "--data", data))


def test_postgresql_that_does_not_answer_is_named_without_its_password(data: Path) -> None:
    url = "postgresql://pilot:hunter2@127.0.0.1:9/pilotwave"
    for command in ("run", "check", "migrate"):
        said = refused(pw(command, "--data", data, PILOTWAVE_DATABASE_URL=url))
        assert "PostgreSQL at 127.0.0.1 cannot be used" in said
        assert "hunter2" not in said


@pytest.mark.parametrize(
    ("name", "value", "word"),
    [
        ("PILOTWAVE_PORT", "many", "PILOTWAVE_PORT"),
        ("PILOTWAVE_PORT", "70000", "PILOTWAVE_PORT"),
        ("PILOTWAVE_LOG_LEVEL", "loud", "PILOTWAVE_LOG_LEVEL"),
        ("PILOTWAVE_DATABASE_URL", "mysql://root:hunter2@h/d", "expected sqlite:///"),
    ],
)
def test_a_wrong_setting_is_named(data: Path, name: str, value: str, word: str) -> None:
    said = refused(pw("check", "--data", data, **{name: value}))
    assert word in said
    assert "hunter2" not in said


def test_a_server_starts_and_names_what_is_no_setting_any_more(
    server_factory: ServerFactory,
) -> None:
    gone = dict.fromkeys(NO_SETTINGS, "many")
    log = server_factory(**gone, workers=2).log.read_text().splitlines()
    said = [line for line in log if "no setting any more" in line]
    assert len(said) == len(gone)
    for name in gone:
        assert name not in Settings.model_fields
        assert sum(f"PILOTWAVE_{name.upper()} is" in line for line in said) == 1


def test_a_port_in_use_is_named(data: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = refused(pw("run", "--data", data, "--port", str(port)))
    assert f"port {port} on 127.0.0.1 is in use" in said


def test_an_address_that_is_not_ours_is_named(data: Path) -> None:
    for host in ("203.0.113.1", "no such host"):
        assert "cannot listen on" in refused(pw("run", "--data", data, "--host", host))


@contextlib.contextmanager
def without_privileges() -> Iterator[None]:
    """Root may write anywhere, so for a while be nobody."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_read_only_data_folder_is_named(data: Path) -> None:
    # Not below pytest's folder, which is closed to other users.
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        folder = Path(shutil.copytree(data, Path(name) / "data"))
        assert pw("check", "--data", folder).exit_code == 0
        folder.chmod(0o555)
        try:
            for words in (["init", "--fleet", "berlin"], ["check"], ["run"]):
                with without_privileges():
                    result = pw(*words, "--data", folder)
                assert "cannot be written (Permission denied)" in refused(result)
        finally:
            folder.chmod(0o755)


NEWER = """
from alembic import op
import sqlalchemy as sa

revision = "add_newer"
down_revision = "{head}"


def upgrade():
    op.create_table("newer", sa.Column("id", sa.Integer, primary_key=True))


def downgrade():
    op.drop_table("newer")
"""


@pytest.fixture
def newer(tmp_path: Path) -> Path:
    """A release one migration ahead of this code, laid out as it is when installed."""
    root = tmp_path / "newer"
    package = root / "pilotwave_server"
    ignore = shutil.ignore_patterns("__pycache__", "_migrations")
    shutil.copytree(Path(pilotwave_server.__file__).parent, package, ignore=ignore)
    shutil.copytree(migrate.scripts_dir(), package / "_migrations", ignore=ignore)
    versions = package / "_migrations" / "versions"
    (versions / "2027-01-01-0000_add_newer.py").write_text(NEWER.format(head=migrate.head()))
    return root


def newer_pw(newer: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pilotwave_server.cli", *map(str, words)],
        env={**os.environ, "PYTHONPATH": str(newer)},
        cwd=newer,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_a_database_one_migration_behind_is_refused_until_it_is_migrated(
    data: Path, newer: Path
) -> None:
    done = newer_pw(newer, "run", "--data", data)
    assert done.returncode == 2
    assert f"at {migrate.head()} and this version needs add_newer" in done.stderr
    assert "run `pilotwave-server migrate --data" in done.stderr
    done = newer_pw(newer, "migrate", "--data", data)
    assert done.stdout == f"Migrated from {migrate.head()} to add_newer.\n"
    assert newer_pw(newer, "check", "--data", data).returncode == 0
    # And the code of before says that the database is ahead of it.
    assert "migrated by a newer Pilotwave" in refused(pw("run", "--data", data))


def test_migrate_says_when_there_is_nothing_to_do(data: Path) -> None:
    done = pw("migrate", "--data", data)
    assert done.exit_code == 0
    assert f"at {migrate.head()} already" in done.output


def test_check_says_that_a_server_could_run(data: Path) -> None:
    assert "The fleet berlin" in pw("check", "--data", data).output
    answer = json.loads(pw("check", "--data", data, "--json").stdout)
    assert answer["fleet"] == "berlin"
    assert answer["migration"] == migrate.head()


def test_check_says_how_many_files_may_be_open_and_warns_of_too_few(data: Path) -> None:
    told = pw("check", "--data", data, PILOTWAVE_PUSH_CONNECTIONS="1000000").output
    assert "LimitNOFILE" in told
    answer = json.loads(pw("check", "--data", data, "--json").stdout)
    assert answer["open_files"] == openfiles.reachable()


@pytest.mark.parametrize(
    "text", ["", "soon", "90", "-1d", "0d", "1y", "999999d", "1.5h", "9" * 5000 + "d"]
)
def test_new_token_refuses_an_expiry_that_is_no_time(data: Path, text: str) -> None:
    said = refused(pw("new-token", "--data", data, "--name", "ci", "--expires-in", text))
    assert "--expires-in: expected" in said


def test_new_token_refuses_a_name_that_is_taken_or_unprintable(data: Path) -> None:
    assert "choose another name" in refused(pw("new-token", "--data", data, "--name", "admin"))
    assert "--name: expected" in refused(pw("new-token", "--data", data, "--name", "a\x07b"))


def test_the_real_program_serves_with_tokens_of_init_and_new_token(
    server_factory: ServerFactory,
) -> None:
    server = server_factory()
    made = pw("new-token", "--data", server.data, "--name", "ci", "--role", "publisher", "--json")
    token = json.loads(made.stdout)["token"]
    for secret, role in ((server.admin_token, "admin"), (token, "publisher")):
        answer = httpx.get(
            f"{server.url}{API}/whoami",
            headers={"Authorization": f"Bearer {secret}"},
            timeout=30,
        )
        assert answer.json()["role"] == role
        assert "server" not in answer.headers
    assert httpx.get(f"{server.url}/healthz", timeout=30).json()["status"] == "ok"
    assert server.stop() == 0
    log = server.log.read_text()
    assert token not in log
    assert server.admin_token not in log


def test_the_real_program_answers_again_after_a_kill(server_factory: ServerFactory) -> None:
    server = server_factory()
    server.kill()
    server.start()
    assert httpx.get(f"{server.url}/healthz", timeout=30).status_code == 200


def test_several_processes_serve_together_and_end_together(server_factory: ServerFactory) -> None:
    server = server_factory(workers=2)
    headers = {"Authorization": f"Bearer {server.admin_token}"}
    for _ in range(20):
        answer = httpx.get(f"{server.url}{API}/whoami", headers=headers, timeout=60)
        assert answer.status_code == 200
    metrics = httpx.get(f"{server.url}/metrics", headers=headers, timeout=60).text
    counted = [line for line in metrics.splitlines() if 'route="/api/v1/whoami"' in line]
    assert any(
        line.startswith("pilotwave_http_requests_total") and line.endswith(" 20.0")
        for line in counted
    ), counted
    assert server.stop() == 0
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{server.url}/healthz", timeout=30)
