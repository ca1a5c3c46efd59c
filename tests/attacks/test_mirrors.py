"""Attacks by a cache at the site: whatever it gives out, the device gets what was signed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from pilotwave_agent.commands.once import once
from pilotwave_protocol.digest import sha256_hex
from pilotwave_protocol.states import ModelState
from tests.attacks.victim import Victim
from tests.peers.mirror import Mirror, mirror
from tests.peers.registry import Registry, Reply, example

__all__ = ["mirror"]

MODEL_FILE = example("1.1.0")["model.onnx"]
BLOB = f"/blobs/{sha256_hex(MODEL_FILE)}"
OTHER = example("1.2.0")["model.onnx"]

LIES: dict[str, Callable[[Reply], Reply]] = {
    "another model": lambda r: Reply(200, OTHER.ljust(len(MODEL_FILE), b"\0")[: len(MODEL_FILE)]),
    "one bit": lambda r: replace(r, body=r.body[:-1] + bytes([r.body[-1] ^ 1])),
    "short": lambda r: replace(r, body=r.body[:-1]),
    "endless": lambda r: Reply(200, MODEL_FILE + b"x" * (1 << 20), cut=2 << 20, declared=-1),
    "a page": lambda r: Reply(200, b"<html>sign in</html>", {"Content-Type": "text/html"}),
    "nothing": lambda r: replace(r, cut=0),
    "garbage, then nothing": lambda r: replace(r, body=b"\0" * len(r.body), cut=1000),
    "refusal": lambda r: Reply(403),
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_what_a_cache_makes_of_a_model_is_never_installed(
    victim: Victim, mirror: Mirror, lie: Callable[[Reply], Reply]
) -> None:
    """And the device does not wait for an honest day: it goes on from the server at once."""
    mirror.bend = lambda path, reply: lie(reply) if "/blobs/" in path else reply
    victim.device.set(mirrors=(mirror.url,))
    victim.registry.order(victim.new)
    victim.device.work(refresh=True)
    assert mirror.requests
    assert victim.served()["model.onnx"] == MODEL_FILE
    assert victim.device.current().startswith("1.1.0-")
    assert victim.device.slot().state is ModelState.HEALTHY
    blobs = victim.device.layout.blobs
    assert all("." in p.name or sha256_hex(p.read_bytes()) == p.name for p in blobs.iterdir())


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_cache_gets_no_token_and_sends_nobody_elsewhere(
    victim: Victim, mirror: Mirror, status: int
) -> None:
    device, elsewhere = victim.device, Registry()
    location = {"Location": f"{elsewhere.url}{BLOB}"}
    mirror.bend = lambda path, reply: Reply(status, b"", location)
    device.set(mirrors=(mirror.url,))
    victim.registry.order(victim.new)
    once(device.config, device.config_path)
    assert mirror.heard
    assert not any("authorization" in map(str.lower, headers) for headers in mirror.heard)
    assert elsewhere.requests == []
    elsewhere.stop()
    assert device.current().startswith("1.1.0-")


def test_a_cache_keeps_metadata_too_but_says_nothing_of_what_is_newest(
    victim: Victim, mirror: Mirror
) -> None:
    victim.device.set(mirrors=(mirror.url,))
    victim.registry.order(victim.new)
    seen = len(victim.registry.requests)
    victim.device.work(refresh=True)
    assert victim.device.current().startswith("1.1.0-")
    of_mirror = [r.split()[1] for r in mirror.requests if "/tuf/" in r]
    of_server = [r.split()[1] for r in victim.registry.requests[seen:] if "/tuf/" in r]
    assert of_mirror
    assert all(".root.json" not in p and "timestamp" not in p for p in of_mirror)
    assert of_server
    assert all(".root.json" in p or "timestamp" in p for p in of_server)


METADATA: dict[str, Callable[[Registry, Reply], Reply]] = {
    "garbage": lambda r, reply: replace(reply, body=b"x" * len(reply.body)),
    "one bit": lambda r, reply: replace(reply, body=reply.body[:-9] + b"0" + reply.body[-8:]),
    "older snapshot": lambda r, reply: replace(
        reply, body=r.files["/tuf/metadata/1.snapshot.json"]
    ),
    "root": lambda r, reply: replace(reply, body=r.root),
    "cut": lambda r, reply: replace(reply, cut=10),
    "endless": lambda r, reply: Reply(200, b"x" * (9 << 20)),
    "gone": lambda r, reply: Reply(404),
}


@pytest.mark.parametrize("lie", METADATA.values(), ids=METADATA)
@pytest.mark.parametrize("file", ["snapshot.json", "models-detector.json", "/targets/"])
def test_metadata_that_a_cache_bends_comes_from_the_server(
    victim: Victim, mirror: Mirror, file: str, lie: Callable[[Registry, Reply], Reply]
) -> None:
    registry = victim.registry
    mirror.bend = lambda path, reply: lie(registry, reply) if file in path else reply
    victim.device.set(mirrors=(mirror.url,))
    registry.order(victim.new)
    victim.device.work(refresh=True)
    assert any(file in request for request in mirror.requests)
    assert victim.device.current().startswith("1.1.0-")
    assert victim.device.state.refusal is None
