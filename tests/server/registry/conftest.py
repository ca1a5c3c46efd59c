from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pilotwave_server.db import Database
from tests.server.registry.registry import Registry


@pytest.fixture
def bare_registry(db: Database, tmp_path: Path, clock: Any) -> Registry:
    """A registry on each kind of database, without a root of trust."""
    return Registry(db, tmp_path / "data", clock)


@pytest.fixture
def registry(bare_registry: Registry) -> Registry:
    """A registry on each kind of database with a model, `detector`, that has no version yet."""
    return bare_registry.bootstrap().create_model("detector")
