"""The processes of one server read from their environment what the first one was told."""

from __future__ import annotations

from pathlib import Path

import pytest

from pilotwave_server.serve import environment
from pilotwave_server.settings import Settings, load_settings


@pytest.mark.parametrize(
    "told",
    [
        Settings(),
        Settings(
            data_dir=Path("/srv/pilotwave"),
            workers=4,
            mqtt_ca_file=Path("/etc/ca.pem"),
            metrics_open=True,
            database_pooler=True,
            key_encryption_key="A" * 43 + "=",
        ),
    ],
)
def test_each_setting_arrives_as_it_was_told(
    told: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment(told).items():
        monkeypatch.setenv(name, value)
    assert load_settings() == told
