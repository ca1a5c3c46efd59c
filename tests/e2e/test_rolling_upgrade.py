"""Two hosts on one database are upgraded one by one: this version, and one that has a migration
more. The newer one is a copy of this checkout with a migration that is made up."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from pilotwave_server import migrate
from tests import databases
from tests.history import REPO

pytestmark = [pytest.mark.needs("postgresql"), pytest.mark.timeout(300), pytest.mark.long]

MIGRATION = '''"""Made up for a test."""

import sqlalchemy as sa
from alembic import op

revision = "{name}"
down_revision = "{after}"
branch_labels = None
depends_on = None
expand_only = {expand_only}


def upgrade() -> None:
    {statements}


def downgrade() -> None:
    raise NotImplementedError
'''
EXPAND = 'op.add_column("groups", sa.Column("colour", sa.String(20), nullable=True))'
CONTRACT = 'op.drop_column("groups", "colour")'
PATIENCE_S = 60


class Tree:
    """The programs of one version."""

    def __init__(self, root: Path, folder: Path, url: str) -> None:
        self.root, self.folder = root, folder
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("PILOTWAVE_")},
            "PYTHONPATH": f"{root / 'agent'}:{root / 'server'}",
            "PILOTWAVE_DATABASE_URL": url,
            "PILOTWAVE_DELTA_PROCESSES": "0",
        }
        self.processes: list[subprocess.Popen[bytes]] = []

    def server(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "pilotwave_server.cli", *words, "--data", "data"]

    def run(self, *words: str) -> str:
        done = subprocess.run(
            self.server(*words),
            env=self.environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def start(self, name: str) -> httpx.Client:
        with open(self.folder / f"{name}.log", "wb") as log:
            process = subprocess.Popen(
                self.server("run", "--port", "0"),
                env=self.environment,
                cwd=self.folder,
                stdout=subprocess.PIPE,
                stderr=log,
            )
        self.processes.append(process)
        assert process.stdout is not None
        line = process.stdout.readline().decode()
        assert line.startswith("listening on "), (self.folder / f"{name}.log").read_text()
        return httpx.Client(base_url=line.split()[-1], timeout=30)

    def close(self) -> None:
        for process in self.processes:
            process.send_signal(signal.SIGKILL)
            process.wait(30)
            assert process.stdout is not None
            process.stdout.close()


@pytest.fixture
def trees(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Tree, Tree]]:
    """This version, and the next one."""
    copy = tmp_path / "next"
    for name in ("agent", "server", "migrations"):
        shutil.copytree(REPO / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    with databases.fresh_postgres(request.getfixturevalue("postgres_url")) as url:
        found = Tree(REPO, tmp_path, url), Tree(copy, tmp_path, url)
        yield found
        for tree in found:
            tree.close()


def add_migration(tree: Tree, name: str, *, after: str, statements: str, expand_only: bool) -> None:
    text = MIGRATION.format(name=name, after=after, statements=statements, expand_only=expand_only)
    (tree.root / "migrations" / "versions" / f"2999-01-01-0000_{name}.py").write_text(text)


def test_hosts_are_upgraded_one_by_one(trees: tuple[Tree, Tree]) -> None:
    this, following = trees
    token = json.loads(this.run("init", "--fleet", "test-fleet", "--json"))["admin_token"]
    headers = {"Authorization": f"Bearer {token}"}
    old = this.start("old")
    add_migration(following, "expands", after=migrate.head(), statements=EXPAND, expand_only=True)
    assert "go on beside it" in following.run("migrate", "--dry-run")
    following.run("migrate")
    new = following.start("new")
    for number, client in enumerate((old, new, old)):
        ready = client.get("/readyz")
        assert (ready.status_code, ready.json()["migration"]) == (200, "expands")
        made = client.post(
            "/api/v1/groups", json={"name": f"g{number}", "selector": "a=b"}, headers=headers
        )
        assert made.status_code == 201, made.text
    for client in (old, new):
        found = client.get("/api/v1/groups", headers=headers).json()["items"]
        assert [group["name"] for group in found] == ["g0", "g1", "g2"]
    this.run("init", "--fleet", "test-fleet")  # an old container that starts again
    this.run("check")

    add_migration(following, "contracts", after="expands", statements=CONTRACT, expand_only=False)
    assert "stop them first" in following.run("migrate", "--dry-run")
    following.run("migrate")
    deadline = time.monotonic() + PATIENCE_S
    while old.get("/readyz").status_code != 503:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    old.close()
    new.close()
