"""Fixtures for tests of the fleet: a server whose registry has versions, and devices to talk to it.

Imported by the `conftest.py` of the folders that want them.
"""

from __future__ import annotations

import shutil
import sqlite3
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select

from pilotwave_server.audit.tables import AuditEventRow
from pilotwave_server.context import Context
from pilotwave_server.db import Database
from pilotwave_server.settings import Settings
from tests.conftest import START, FakeClock
from tests.server.device_api.peer import SimulatedDevice
from tests.server.registry.registry import Registry

only_sqlite = pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
"""For tests of what happens before any database is asked."""
VERSIONS = ("1.0.0", "1.1.0", "1.2.0")


def publish_all(registry: Registry) -> Registry:
    registry.bootstrap().create_model("detector")
    for version in VERSIONS:
        registry.publish("detector", version)
    return registry


@cache
def published_template(tables: Path, folder: Path) -> Registry:
    """What `published` begins with, made once: publishing costs more than most tests."""
    folder.mkdir()
    db = Database(f"sqlite:///{shutil.copy(tables, folder / 'pilotwave.db')}")
    registry = publish_all(Registry(db, folder, FakeClock(START)))
    db.close()
    return registry


@pytest.fixture
def published(
    db: Database,
    settings: Settings,
    clock: FakeClock,
    sqlite_template: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Registry:
    """A registry with three versions of `detector`, ready before the server starts."""
    if db.is_sqlite and clock() == START and is_untouched(db, settings):
        template = published_template(sqlite_template, tmp_path_factory.getbasetemp() / "published")
        return copied(template, db, settings, clock)
    return publish_all(Registry(db, settings.data_dir, clock))


def is_untouched(db: Database, settings: Settings) -> bool:
    """Say whether nothing was written yet, and no server has read its keys."""
    if (settings.data_dir / "tuf").exists():
        return False
    with db.read() as session:
        return not session.scalar(select(func.count()).select_from(AuditEventRow))


def copied(template: Registry, db: Database, settings: Settings, clock: FakeClock) -> Registry:
    """Bring the template's rows, keys and files to where a test has its own."""
    db.close()
    source = sqlite3.connect(str(template.db.url.database))
    with sqlite3.connect(str(db.url.database)) as target:
        source.backup(target)
    source.close()
    target.close()
    for name in ("keys", "blobs", "tuf"):
        shutil.copytree(template.data_dir / name, settings.data_dir / name, dirs_exist_ok=True)
    offline = replace(template.offline, clock=clock, publishers=dict(template.offline.publishers))
    return Registry(db, settings.data_dir, clock, offline=offline)


@dataclass
class Fleet:
    """A running server, an operator's client, and a way to get devices."""

    operator: httpx.Client
    client: httpx.Client
    context: Context
    registry: Registry

    def code(self, **given: Any) -> str:
        answer = self.operator.post("/api/v1/enrolment-codes", json=given)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["items"][0]["code"])

    def device(self, name: str = "cam-1", **labels: str) -> SimulatedDevice:
        """An enrolled device that has checked in once."""
        device = SimulatedDevice(name, self.client)
        answer = device.enrol(self.code(labels=labels))
        assert answer.status_code == 201, answer.text
        assert device.check_in().status_code == 200
        return device

    def group(self, name: str, selector: str | None = None) -> None:
        body = {"name": name, "selector": selector}
        assert self.operator.post("/api/v1/groups", json=body).status_code == 201

    def assign(self, group: str, version: str, model: str = "detector") -> Any:
        path = f"/api/v1/groups/{group}/baselines/{model}"
        answer = self.operator.put(path, json={"version": version})
        assert answer.status_code == 200, answer.text
        return answer.json()

    def act(self, device: str, verb: str, **body: Any) -> httpx.Response:
        path = f"/api/v1/devices/{device}/{verb}"
        return self.operator.post(path, json=body) if body else self.operator.post(path)

    def deny(self, version: str, reason: str = "too slow") -> None:
        path = f"/api/v1/models/detector/versions/{version}/deny"
        assert self.operator.post(path, json={"reason": reason}).status_code == 200


@pytest.fixture
def fleet(
    published: Registry, operator: httpx.Client, client: httpx.Client, context: Context
) -> Fleet:
    return Fleet(operator, client, context, published)
