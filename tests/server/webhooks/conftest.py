from __future__ import annotations

from pathlib import Path

import pytest

from pilotwave_server.settings import Settings
from pilotwave_server.webhooks import setup
from tests import databases
from tests.server.fleet_fixtures import fleet, published

__all__ = ["fleet", "published"]


@pytest.fixture
def settings(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Those of a server whose webhooks may call this machine, briefly."""
    monkeypatch.setattr(setup, "TIMEOUT_S", 1.0)
    return databases.prepare_data_dir(
        Settings(
            data_dir=tmp_path,
            database_url=database_url,
            webhook_targets="any",
        )
    )
