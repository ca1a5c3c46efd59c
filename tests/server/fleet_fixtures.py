"""Fixtures for tests of the fleet: a server whose registry has versions, and devices to talk to it.

Imported by the `conftest.py` of the folders that want them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from pilotwave_server.context import Context
from pilotwave_server.db import Database
from pilotwave_server.settings import Settings
from tests.server.device_api.peer import SimulatedDevice
from tests.server.registry.registry import Registry

only_sqlite = pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
"""For tests of what happens before any database is asked."""
VERSIONS = ("1.0.0", "1.1.0", "1.2.0")


@pytest.fixture
def published(db: Database, settings: Settings, clock: Any) -> Registry:
    """A registry with three versions of `detector`, ready before the server starts."""
    registry = Registry(db, settings.data_dir, clock).bootstrap().create_model("detector")
    for version in VERSIONS:
        registry.publish("detector", version)
    return registry


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
