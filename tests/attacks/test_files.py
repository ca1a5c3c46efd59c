"""Attacks on what is downloaded: blobs, manifests, names, room on the disk, other addresses."""

from __future__ import annotations

import json
import pickle
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pilotwave_agent.commands.once import once
from pilotwave_agent.work import Job, work
from pilotwave_protocol.digest import sha256_hex
from pilotwave_protocol.messages.directive import Entry
from pilotwave_protocol.states import ModelState, Reason
from tests.attacks.victim import Victim
from tests.attacks.virtual import Believer
from tests.peers.registry import Registry, Reply, example

MODEL_FILE = example("1.1.0")["model.onnx"]
BLOB = f"/blobs/{sha256_hex(MODEL_FILE)}"
ENDLESS = b"x" * (1 << 20)
OTHER = example("1.2.0")["model.onnx"]


def in_place_of(body: bytes, **more: Any) -> Callable[[str, Reply], Reply]:
    """Answer the request for the model's file with this instead."""
    return lambda path, reply: Reply(200, body, **more) if path == BLOB else reply


@pytest.mark.parametrize(
    ("bend", "reason"),
    [
        (in_place_of(OTHER.ljust(len(MODEL_FILE), b"\0")[: len(MODEL_FILE)]), Reason.BLOB_MISMATCH),
        (in_place_of(MODEL_FILE[:-1] + b"\0"), Reason.BLOB_MISMATCH),
        (in_place_of(MODEL_FILE[:-1]), Reason.BLOB_TRUNCATED),
        (in_place_of(b""), Reason.BLOB_TRUNCATED),
        (in_place_of(MODEL_FILE + b"\0"), Reason.BLOB_TOO_LONG),
        (
            in_place_of(MODEL_FILE + b"x" * (1 << 20), cut=2 << 20, declared=-1),
            Reason.BLOB_TOO_LONG,
        ),
        (lambda path, reply: Reply(404) if path == BLOB else reply, Reason.BLOB_MISSING),
        (lambda path, reply: Reply(500) if path == BLOB else reply, Reason.BLOB_UNAVAILABLE),
    ],
    ids=["swapped", "one bit", "short", "empty", "long", "endless", "missing", "error"],
)
def test_other_bytes_are_refused_and_none_is_kept(
    victim: Victim, bend: Callable[[str, Reply], Reply], reason: Reason
) -> None:
    victim.registry.bend = bend
    victim.registry.order(victim.new)
    victim.refuses(reason)
    blobs = victim.device.layout.blobs
    assert not (blobs / sha256_hex(MODEL_FILE)).exists()
    for path in blobs.iterdir():  # what is named by a digest has that digest
        assert "." in path.name or sha256_hex(path.read_bytes()) == path.name
    victim.recovers()


def test_a_cache_that_compresses_is_a_cache_that_changes_bytes(victim: Victim) -> None:
    victim.registry.bend = in_place_of(MODEL_FILE, headers={"Content-Encoding": "gzip"})
    victim.registry.order(victim.new)
    done = victim.device.work(refresh=True)
    assert done.retry
    assert victim.device.current().startswith("1.0.0-")
    victim.recovers()


def test_nothing_tied_switches_until_the_whole_set_is_here(victim: Victim) -> None:
    """Two models that the order ties: one of them arrives whole, the other does not."""
    registry, device = victim.registry, victim.device
    tie = {"together": ["detector", "other"]}
    pair = replace(victim.new, conditions=tie), replace(other_model(victim), conditions=tie)
    path = f"/blobs/{sha256_hex(example('1.3.0')['model.onnx'])}"
    kept = registry.files.pop(path)
    registry.order(*pair)
    before = victim.served()
    device.work(refresh=True)
    assert victim.served() == before
    assert device.slot().candidate is not None
    assert device.slot().candidate.version == "1.1.0"  # here, and waiting
    assert device.slot().reason == Reason.WAITING_TOGETHER
    assert device.slot("other").current is None
    assert device.slot("other").reason == Reason.BLOB_MISSING
    registry.files[path] = kept
    registry.order(*pair)
    device.work(refresh=True)
    assert device.current().startswith("1.1.0-")
    assert device.current("other").startswith("1.0.0-")


def test_a_model_that_cannot_be_had_holds_up_no_other(victim: Victim) -> None:
    """Nobody tied them: what is withheld of one keeps no other back."""
    registry, device = victim.registry, victim.device
    other = other_model(victim)
    registry.files.pop(f"/blobs/{sha256_hex(example('1.3.0')['model.onnx'])}")
    registry.order(victim.new, other)
    device.work(refresh=True)
    assert device.current().startswith("1.1.0-")
    assert device.slot("other").current is None
    assert device.slot("other").reason == Reason.BLOB_MISSING


def other_model(victim: Victim) -> Entry:
    return victim.registry.publish("other", "1.0.0", example("1.3.0"))


BAD_PATHS = [
    "../model.onnx",
    "../../../../etc/cron.d/evil",
    "/etc/passwd",
    "a/../../b",
    "a//b",
    "./a",
    "a/",
    "a\\..\\b",
    "C:evil",
    "model.onnx\n",
    "mod\u202eel.onnx",
    "modèle.onnx",
    ".hidden",
    "-rf",
    "a b",
    "a\u0000b",
    "CON/" + "x" * 300,
    "",
]


@pytest.mark.parametrize("path", BAD_PATHS, ids=[ascii(p)[1:40] for p in BAD_PATHS])
def test_a_signed_manifest_with_an_odd_path_is_no_manifest(believer: Believer, path: str) -> None:
    """Even the publisher cannot write outside the version's own folder."""
    registry, outside = believer.registry, believer.outside

    def written(raw: bytes) -> bytes:
        return raw.replace(b'"selftest.safetensors"', json.dumps(path).encode())

    entry = registry.publish("detector", "1.3.0", example("1.3.0"), written=written)
    registry.order(entry)
    believer.refuses(Reason.MANIFEST_INVALID)
    assert believer.outside == outside


@pytest.mark.parametrize(
    "written",
    [
        lambda raw: raw.replace(b'"detector"', b'"other"'),
        lambda raw: raw.replace(b'"1.3.0"', b'"1.3.1"'),
        lambda raw: raw.replace(b'"counter":3', b'"counter":30'),
        lambda raw: raw.replace(b'"counter":3', b'"counter":3,"counter":3'),
        lambda raw: raw.replace(b'"counter":3', b'"counter":3,"more":0'),
        lambda raw: raw.replace(b'"size":', b'"size":-'),
        lambda raw: raw.replace(b"selftest.safetensors", b"MODEL.onnx"),
        lambda raw: raw.replace(b"selftest.safetensors", b"model.onnx/x"),
    ],
    ids=["model", "version", "counter", "twice", "field", "size", "case", "file as folder"],
)
def test_a_manifest_that_does_not_add_up_is_refused(
    believer: Believer, written: Callable[[bytes], bytes]
) -> None:
    registry = believer.registry
    plain: list[bytes] = []

    def watched(raw: bytes) -> bytes:
        plain.append(raw)
        return written(raw)

    registry.order(registry.publish("detector", "1.3.0", example("1.3.0"), written=watched))
    assert written(plain[0]) != plain[0]
    believer.refuses(Reason.MANIFEST_INVALID)
    believer.recovers()


def test_a_disk_without_room_is_not_written_to(victim: Victim) -> None:
    victim.device.set(keep_free_mb=1 << 30)
    victim.registry.order(victim.new)
    victim.refuses(Reason.DISK_FULL)
    assert BLOB not in " ".join(victim.registry.requests)
    victim.device.set(keep_free_mb=0)
    victim.recovers()


@contextmanager
def no_file_above(size: int) -> Iterator[None]:
    """Let the kernel itself say no to every write beyond `size` bytes of a file."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("room", [0, 100, 2000, 4000, 6000])
def test_a_disk_that_fills_up_at_any_point_harms_nothing(victim: Victim, room: int) -> None:
    """Trust files, manifest, blobs, journal: whatever it is that finds no room any more."""
    device, before = victim.device, victim.served()
    victim.registry.order(victim.new)
    device.deliver()
    with no_file_above(room):
        done = work(device.config, Job(token="token", refresh=True))
    assert done.retry == Reason.DISK_FULL
    assert victim.served() == before
    victim.recovers()


def test_a_format_that_runs_code_needs_the_devices_leave(victim: Victim) -> None:
    registry, device = victim.registry, victim.device
    marker = device.layout.root.parent / "ran"

    class Evil:
        def __reduce__(self) -> Any:
            return Path.touch, (marker,)

    files = {"model.pt": pickle.dumps(Evil())}
    entry = registry.publish(
        "detector", "1.3.0", files, entrypoint="model.pt", runtime="command", unsafe_format=True
    )
    registry.order(entry)
    victim.refuses(Reason.UNSAFE_FORMAT)
    assert not marker.exists()
    victim.recovers()


def test_a_pickle_that_calls_itself_onnx_is_not_run(victim: Victim) -> None:
    registry, device = victim.registry, victim.device
    marker = device.layout.root.parent / "ran"

    class Evil:
        def __reduce__(self) -> Any:
            return Path.touch, (marker,)

    before = victim.served()
    registry.order(registry.publish("detector", "1.3.0", {"model.onnx": pickle.dumps(Evil())}))
    device.work(refresh=True)
    slot = device.slot()
    assert slot.reason in (Reason.SELFTEST_FORMAT, Reason.SELFTEST_LOAD)
    assert slot.state is ModelState.FAILED
    assert (victim.served(), marker.exists()) == (before, False)
    victim.recovers()


@pytest.mark.parametrize(
    "where",
    ["/device/v1/check-in", "/device/v1/directive", "/tuf/metadata/timestamp.json", BLOB],
)
@pytest.mark.parametrize("status", [302, 308])
def test_no_redirect_is_followed(victim: Victim, where: str, status: int) -> None:
    """A redirect would send the device's token and its questions to whoever is named."""
    registry, device, before = victim.registry, victim.device, victim.served()
    elsewhere = Registry()
    elsewhere.files = registry.files
    location = {"Location": f"{elsewhere.url}{where}"}
    registry.bend = lambda path, reply: Reply(status, b"", location) if path == where else reply
    registry.order(victim.new)
    said = once(device.config, device.config_path)
    assert said
    assert elsewhere.requests == []
    assert victim.served() == before
    elsewhere.stop()
    victim.recovers()
