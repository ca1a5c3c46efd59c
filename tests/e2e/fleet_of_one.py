"""A server, its keys and one device that has every runtime: programs, as on a real network."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import httpx

from demo.stage import Stage
from tests.e2e.stage import ForkedStage
from tests.runtimes import TFLITE_PYTHON

PATIENCE_S = 100
_QUICK = {"PILOTWAVE_POLL_INTERVAL_S": "1"}
SETTINGS = """
allow_unsafe_formats = true
probation_s = 1
[runtimes.tflite-runtime]
python = "{python}"
"""


class FleetOfOne:
    """The stage with the words of this story: publish, assign, and what the device runs."""

    def __init__(self, stage: Stage, code: str) -> None:
        self.stage, self.code = stage, code
        self.data = stage.root / "board"
        token = (stage.root / "admin.token").read_text().strip()
        headers = {"Authorization": f"Bearer {token}"}
        self._client = httpx.Client(base_url=stage.url, headers=headers, timeout=60)

    def close(self) -> None:
        self._client.close()

    def publish(self, model: str, version: str, folder: Path, *words: str) -> None:
        key = ("--key", "keys/publisher.pem")
        self.stage.pilotwave(
            "publish",
            model,
            version,
            "--variant",
            f"v={folder}",
            *key,
            "--unsafe-format",
            "--no-try",
            *words,
        )

    def assign(self, model: str, version: str) -> None:
        self.stage.pilotwave("assign", "--yes", model, version, "--group", "boards")

    def slot(self, model: str) -> dict[str, Any]:
        """What the device last said of one model."""
        return next((m for m in self.device().get("models", []) if m["model"] == model), {})

    def until(self, model: str, version: str, *states: str) -> dict[str, Any]:
        """Wait until the device says that `version` is current, in one of these states."""
        found: dict[str, Any] = {}

        def said() -> bool:
            nonlocal found
            found = self.slot(model)
            return found.get("current_version") == version and found.get("state") in states

        wait_until(said, lambda: f"{model} {version} {states}; the device says {found}")
        return found

    def device(self) -> dict[str, Any]:
        """What the server knows of the device."""
        found: dict[str, Any] = self._client.get("/api/v1/devices/board").raise_for_status().json()
        return found

    def facts(self) -> dict[str, Any]:
        facts: dict[str, Any] = self.device()["facts"]
        return facts


def wait_until(condition: Callable[[], bool], what: Callable[[], str]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, what()
        time.sleep(0.2)


@contextmanager
def fleet_of_one(
    root: Path,
    *,
    settings: str = "",
    top: str = "",
    server: Mapping[str, str] = _QUICK,
    link: Callable[[str], str] = lambda url: url,
    service: Callable[[Path], AbstractContextManager[object]] | None = None,
) -> Iterator[FleetOfOne]:
    """`settings` is added to the device's, `top` before their first table; `server` has the
    server's. `link` is given the server's address and returns the one by which the device reaches
    it; `service` runs the agent on a data folder instead."""
    stage = ForkedStage(root, settings={**server, "PILOTWAVE_LOG_LEVEL": "debug"})
    try:
        init = ("--data", "data", "--fleet", "one", "--token-file", "admin.token")
        stage.run("pilotwave-server", "init", *init)
        stage.start_server()
        stage.pilotwave("keys", "init", "--dir", "keys", "--plain")
        made = stage.ask("codes", "create", "--label", "site=here")
        code = (made["items"] if isinstance(made, dict) else made)[0]["code"]
        who = ("--server", link(stage.url), "--name", "board", "--code", code)
        stage.run("pilotwave-agent", "enrol", *who, "--root", "keys/root.json", "--data", "board")
        config = root / "board" / "agent.toml"
        own = SETTINGS.format(python=TFLITE_PYTHON)
        config.write_text(config.read_text() + top + own + settings)
        stage.pilotwave("groups", "create", "boards", "--selector", "site=here")
        if service is None:
            stage.start("agent", "pilotwave-agent", "run", "--data", "board")
        with (service or nullcontext)(root / "board"), closing(FleetOfOne(stage, code)) as fleet:
            yield fleet
    finally:
        stage.close()
