"""The example with Flower: weights that come back are believed in nothing; its way to devices."""

from __future__ import annotations

import pickle
import re
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from safetensors.numpy import save

from demo.stage import REPO
from examples.flower.convert import BadWeights, convert, weights_of

BASE = REPO / "examples" / "digits" / "1.1.0" / "model.onnx"
Weights = dict[str, np.ndarray]


def trained() -> Weights:
    """Weights of the base's shapes, all of them others."""
    random = np.random.default_rng(3)
    return {
        name: random.normal(size=array.shape).astype(np.float32)
        for name, array in weights_of(BASE).items()
    }


def with_one(name: str, value: float) -> Weights:
    found = trained()
    found[name].flat[0] = value
    return found


def in_bfloat16() -> bytes:
    """A type that numpy does not have."""
    raw = save({**trained(), "b2": np.zeros(10, np.float16)}).replace(b'"F16"', b'"BF16"')
    (length,) = struct.unpack("<Q", raw[:8])
    return struct.pack("<Q", length + 1) + raw[8:]


def test_converted_weights_are_what_the_model_computes_with(tmp_path: Path) -> None:
    w = trained()
    (tmp_path / "trained.safetensors").write_bytes(save(w))
    convert(BASE, tmp_path / "trained.safetensors", tmp_path / "out.onnx")
    x = np.random.default_rng(4).uniform(size=(5, 64)).astype(np.float32)
    session = onnxruntime.InferenceSession(
        tmp_path / "out.onnx", providers=["CPUExecutionProvider"]
    )
    (probs,) = session.run(["probs"], {"x": x})
    z = np.maximum(x @ w["w1"] + w["b1"], 0) @ w["w2"] + w["b2"]
    e = np.exp(z - z.max(axis=1, keepdims=True))
    np.testing.assert_allclose(probs, e / e.sum(axis=1, keepdims=True), atol=1e-5)
    assert weights_of(tmp_path / "out.onnx").keys() == w.keys()


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"", "safetensors"),
        # a pickle is code, which whoever loads it runs
        (pickle.dumps(trained()), "safetensors"),
        (save(trained())[:-4], "safetensors"),
        (save(trained()) + b"\0\0\0\0", "safetensors"),
        # a header that is said to be larger than the file
        (struct.pack("<Q", 1 << 60) + save(trained())[8:], "safetensors"),
        (bytes(1 << 20), "at most"),
        (save({}), "missing: b1, b2, w1, w2"),
        (save({n: a for n, a in trained().items() if n != "b2"}), "missing: b2"),
        (save({**trained(), "w3": np.zeros(1, np.float32)}), "not the model's: w3"),
        (save({**trained(), "b2": np.zeros(11, np.float32)}), r"b2: expected float32 \[10\]"),
        # as many numbers, and in another order
        (save({**trained(), "w2": trained()["w2"].T.copy()}), r"w2: expected float32 \[64, 10\]"),
        (save({**trained(), "b2": np.zeros(10)}), "got float64"),
        (save({**trained(), "b2": np.zeros(10, np.int32)}), "got int32"),
        (save({**trained(), "b2": np.zeros(10, np.float16)}), "got float16"),
        (in_bfloat16(), "BF16"),
        (save(trained()).replace(b'"F32"', b'"I32"'), "expected float32"),
        (save(with_one("w1", np.nan)), "w1: expected finite numbers"),
        (save(with_one("b1", -np.inf)), "b1: expected finite numbers"),
    ],
)
def test_weights_that_are_not_the_models_are_refused(raw: bytes, why: str, tmp_path: Path) -> None:
    file = tmp_path / "trained.safetensors"
    file.write_bytes(raw)
    with pytest.raises(BadWeights, match=why):
        convert(BASE, file, tmp_path / "out.onnx")
    assert not (tmp_path / "out.onnx").exists()


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_what_flower_trained_reaches_the_devices_as_a_signed_version() -> None:
    told = [sys.executable, "-m", "examples.flower"]
    done = subprocess.run(told, capture_output=True, text=True, timeout=1150, cwd=REPO)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert done.stdout.splitlines()[-1] == "flower: ok"
    (found,) = re.findall(r"([\d.]+)% were right in use before, ([\d.]+)% after", done.stdout)
    before, after = map(float, found)
    assert after > before + 20
