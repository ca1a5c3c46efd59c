"""A cache before a registry: it gives out the same files, to whoever has a link."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.peers.registry import Registry, Reply


class Mirror(Registry):
    """Serves a registry's blobs and deltas; `bend` makes it a bad one."""

    def __init__(self, registry: Registry) -> None:
        super().__init__()
        self.files = registry.files
        self.heard: list[dict[str, str]] = []

    def answer(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Reply:
        """Return metadata, and what is asked for with a link."""
        self.heard.append(headers)
        if path.startswith("/tuf/"):
            return Reply(200, self.files[path]) if path in self.files else Reply(404)
        path, _, link = path.partition("?link=")
        if link != "good":
            return Reply(401)
        return self._blob(path, headers) if path in self.files else Reply(404)


@pytest.fixture
def mirror(registry: Registry) -> Iterator[Mirror]:
    made = Mirror(registry)
    yield made
    made.stop()
