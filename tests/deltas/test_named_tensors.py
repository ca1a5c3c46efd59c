"""Where the format says where tensors lie, what moved is found by name."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save

from pilotwave_deltas import align, anchors, tensors
from tests.deltas.pairs import applied, made, weights
from tests.server.registry.registry import onnx

Named = dict[str, NDArray[np.float32]]


def layers(seed: int) -> Named:
    """Layers that look alike, trained so hard that no run of numbers is as it was."""
    found = {}
    for i in range(6):
        old = np.asarray(weights(20_000, i, "float32"), np.float32)
        noise = np.random.default_rng(seed * 100 + i).normal(size=len(old)) * seed * 0.2
        found[f"layer{i}"] = (old * (1 + noise)).astype(np.float32)
    return found


def view(data: bytes) -> NDArray[np.uint8]:
    return np.frombuffer(data, np.uint8)


def tar(data: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in (("about.txt", b"about"), ("m.safetensors", data)):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return out.getvalue()


def stored_zip(data: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("about.txt", b"about")
        archive.writestr("m.safetensors", data)
    return out.getvalue()


def as_it_is(data: bytes) -> bytes:
    return data


@pytest.mark.parametrize("wrapped", [as_it_is, tar, stored_zip])
def test_tensors_are_found_also_in_archives(wrapped: Callable[[bytes], bytes]) -> None:
    kept = layers(0)
    data = wrapped(save(kept))
    found = tensors.find_all(view(data))
    assert len(found) == 6
    for tensor in found:
        content = data[tensor.start : tensor.start + tensor.size]
        assert content == kept[tensor.name.rpartition("/")[2]].tobytes()


def test_what_moved_is_compared_with_its_namesake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One tensor more at the front and one at the end: the others neither begin nor end alike."""
    monkeypatch.setattr(anchors, "find", lambda *_: [])  # content alone would find them as well
    grown = layers(1) | {"a": layers(2)["layer0"], "z": layers(2)["layer1"]}
    old, new = save(layers(0)), save(grown)
    ((shift, first, last),) = align._named(view(old), view(new))
    places = {t.name: t.start for t in tensors.find_all(view(new))}
    assert shift == tensors.find_all(view(old))[0].start - places["/layer0"]
    assert (last - first) * align.PIECE >= 6 * 80_000
    _, named = made(tmp_path, old, new)
    assert applied(named, old) == new
    monkeypatch.setattr(align, "_named", lambda old, new: iter(()))
    _, unnamed = made(tmp_path, old, new)
    assert len(named) < 0.97 * len(unnamed)


@pytest.mark.parametrize(
    "data", [b"", b"PK\x03\x04" + bytes(99), bytes(257) + b"ustar" + bytes(999)]
)
def test_damaged_files_name_nothing(data: bytes) -> None:
    assert tensors.find_all(view(data)) == []


def test_an_onnx_models_weights_are_named() -> None:
    data = onnx("x", weights=bytes(8))
    assert tensors.find_all(view(data)) == []  # it says no type
    assert list(align._named(view(data), view(data))) == []


def test_rows_of_a_named_tensor_are_predicted_each_by_a_factor_of_its_own(tmp_path: Path) -> None:
    """Folding a norm scales each output's weights: 108 of them here, which no fixed group fits."""
    old = np.asarray(weights(108 * 1200, 1, "int8"), np.int8).reshape(1200, 108)
    factors = np.random.default_rng(2).normal(1, 0.2, (1200, 1))
    new = np.clip(np.rint(old * factors), -127, 127).astype(np.int8)
    _, nameless = made(tmp_path, old.tobytes(), new.tobytes())
    before, after = save({"conv": old}), save({"conv": new})
    _, named = made(tmp_path, before, after)
    assert applied(named, before) == after
    assert len(named) < 0.8 * len(nameless)


SHAPES = [[1200, 108], [1200, 1.5], [1200, "x"], [1200] + [2] * 60, {}, [-1, -108]]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_tensors_that_overlap_or_have_odd_shapes_lead_to_no_wrong_delta(
    tmp_path: Path, shape: object
) -> None:
    old = np.asarray(weights(108 * 1200, 1, "int8"), np.int8).reshape(1200, 108)
    factors = np.random.default_rng(2).normal(1, 0.2, (1200, 1))
    new = np.clip(np.rint(old * factors), -127, 127).astype(np.int8)
    named = {
        name: {"dtype": "I8", "shape": shape, "data_offsets": (108 * first, 108 * last)}
        for name, first, last in (("all", 0, 1200), ("last", 1080, 1200))
    }
    head = json.dumps(named).encode()
    before, after = (len(head).to_bytes(8, "little") + head + x.tobytes() for x in (old, new))
    _, delta = made(tmp_path, before, after)
    assert applied(delta, before) == after
