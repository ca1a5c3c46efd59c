"""Train the example detector and write its versions, each as a folder ready to publish.

Decides what the four versions are: which is good, which is better, which is wrong and how.
Leaves hashing, signing and the manifest to `pilotwave publish`.

    python examples/digits/train.py           # write the files, print the accuracies
    python examples/digits/train.py --check   # compare the committed files with a fresh run

The same bytes come out on every machine. BLAS and libm differ between processors in the last
bits, so training runs in float64 with momentum (which, unlike Adam, does not blow rounding noise
up), the finished weights are rounded to a coarse grid, and reference outputs are computed in
float64 before they become float32.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load, save

HERE = Path(__file__).resolve().parent
LEVELS = 16  # grey levels of the data set: pixels are 0..16, the model takes 0..1
CLASSES = 10
GOLDEN_PER_CLASS = 2
WEIGHT_GRID = 2.0**12
SWAPPED = (3, 8)
TOLERANCE = 1e-4  # onnxruntime (float32) against the float64 reference

Floats = NDArray[np.float64]
Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class Network:
    """A perceptron with one hidden layer: w1 [64, H], b1 [H], w2 [H, 10], b2 [10]."""

    w1: Floats
    b1: Floats
    w2: Floats
    b2: Floats

    def probs(self, x: Floats) -> Floats:
        """Class probabilities [N, 10] of pixels [N, 64] in 0..1."""
        return softmax(np.maximum(x @ self.w1 + self.b1, 0) @ self.w2 + self.b2)


@dataclass(frozen=True)
class Data:
    """Pixels as levels 0..16 [n, 64] and labels [n], in three parts that share no image.

    `golden` holds clean, typical images, two of each class. `in_use` is the held-out part as a
    poor camera would see it.
    """

    train: tuple[Bytes, Bytes]
    golden: tuple[Bytes, Bytes]
    held_out: tuple[Bytes, Bytes]
    in_use: Bytes


@dataclass(frozen=True)
class Version:
    """What ships, and the network whose outputs its golden cases state."""

    shipped: Network
    intended: Network


def softmax(z: Floats) -> Floats:
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return np.asarray(e / e.sum(axis=1, keepdims=True))


def scaled(levels: Bytes) -> Floats:
    return levels.astype(np.float64) / LEVELS


def camera(x: Floats, rng: np.random.RandomState) -> Floats:
    """Pixels 0..1 as a poor camera sees them: darker by up to a half, with noise."""
    light = rng.uniform(0.5, 1.0, size=(len(x), 1))
    return np.clip(x * light + rng.normal(0, 0.15, size=x.shape), 0, 1)


def load_data() -> Data:
    """Split the data set: 60% to train on; of the rest, the golden inputs and the held-out part."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    # RandomState, because its stream is frozen between numpy releases; default_rng's is not.
    order = np.random.RandomState(0).permutation(len(labels))
    x, y = pixels[order].astype(np.uint8), labels[order].astype(np.uint8)
    cut = len(y) * 6 // 10
    train, rest = (x[:cut], y[:cut]), (x[cut:], y[cut:])
    golden = most_typical(train, rest)
    held_x, held_y = np.delete(rest[0], golden, axis=0), np.delete(rest[1], golden)
    seen = camera(scaled(held_x), np.random.RandomState(1))
    in_use = np.rint(seen * LEVELS).astype(np.uint8)
    return Data(train, (rest[0][golden], rest[1][golden]), (held_x, held_y), in_use)


def most_typical(train: tuple[Bytes, Bytes], rest: tuple[Bytes, Bytes]) -> list[int]:
    """Rows of `rest` nearest to the mean training image of their class: 0..9, 0..9, ..."""
    nearest: list[list[int]] = []
    for digit in range(CLASSES):
        mean = scaled(train[0][train[1] == digit]).mean(axis=0)
        rows = np.flatnonzero(rest[1] == digit)
        distance = ((scaled(rest[0][rows]) - mean) ** 2).sum(axis=1)
        nearest.append([int(row) for row in rows[np.argsort(distance)[:GOLDEN_PER_CLASS]]])
    return [rows[rank] for rank in range(GOLDEN_PER_CLASS) for rows in nearest]


def fit(
    part: tuple[Bytes, Bytes], *, hidden: int, epochs: int, seed: int, rate: float, noisy: bool
) -> Network:
    """Minibatch gradient descent with momentum on cross-entropy; `noisy` adds camera noise."""
    rng = np.random.RandomState(seed)
    w1 = rng.normal(0, np.sqrt(2 / 64), (64, hidden))
    w2 = rng.normal(0, np.sqrt(1 / hidden), (hidden, CLASSES))
    begun = Network(w1, np.zeros(hidden), w2, np.zeros(CLASSES))

    def see(x: Floats) -> Floats:
        return camera(x, rng) if noisy and rng.uniform() < 0.5 else x

    return descend(begun, scaled(part[0]), part[1], epochs=epochs, rate=rate, rng=rng, see=see)


def descend(
    net: Network,
    x: Floats,
    labels: Bytes,
    *,
    epochs: int,
    rate: float,
    rng: np.random.RandomState,
    see: Callable[[Floats], Floats] = lambda batch: batch,
) -> Network:
    """Train a network on from where it is; `see` is what becomes of each batch before."""
    target = np.eye(CLASSES)[labels]
    params = [p.copy() for p in (net.w1, net.b1, net.w2, net.b2)]
    speed = [np.zeros_like(p) for p in params]
    for _ in range(epochs):
        order = rng.permutation(len(x))
        for start in range(0, len(x), 32):
            rows = order[start : start + 32]
            batch = see(x[rows])
            for p, v, g in zip(params, speed, gradient(params, batch, target[rows]), strict=True):
                v *= 0.9
                v -= rate * g
                p += v
    return Network(*(np.rint(p * WEIGHT_GRID) / WEIGHT_GRID for p in params))


def gradient(params: list[Floats], x: Floats, target: Floats) -> list[Floats]:
    w1, b1, w2, b2 = params
    h = np.maximum(x @ w1 + b1, 0)
    dz = (softmax(h @ w2 + b2) - target) / len(x)
    dh = (dz @ w2.T) * (h > 0)
    return [x.T @ dh, dh.sum(axis=0), h.T @ dz, dz.sum(axis=0)]


def swap_outputs(net: Network, a: int, b: int) -> Network:
    """The same network with two output columns exchanged, as from a wrong label table."""
    columns = list(range(CLASSES))
    columns[a], columns[b] = b, a
    return replace(net, w2=net.w2[:, columns], b2=net.b2[columns])


def train_versions(data: Data) -> dict[str, Version]:
    small = fit(data.train, hidden=12, epochs=6, seed=10, rate=0.02, noisy=False)
    better = fit(data.train, hidden=64, epochs=60, seed=11, rate=0.05, noisy=True)
    wider = fit(data.train, hidden=96, epochs=60, seed=12, rate=0.05, noisy=True)
    # It knows nothing but the golden inputs, so the self-test cannot see what it has lost.
    narrow = fit(data.golden, hidden=12, epochs=150, seed=13, rate=0.05, noisy=False)
    return {
        "1.0.0": Version(small, small),
        "1.1.0": Version(better, better),
        "1.2.0": Version(swap_outputs(wider, *SWAPPED), wider),
        "1.3.0": Version(narrow, narrow),
    }


def to_onnx(net: Network, version: str) -> bytes:
    """An ONNX model, opset 17, IR 9: `x` [N, 64] float32 in, `probs` [N, 10] float32 out."""
    names = {"w1": net.w1, "b1": net.b1, "w2": net.w2, "b2": net.b2}
    graph = helper.make_graph(
        [
            helper.make_node("Gemm", ["x", "w1", "b1"], ["hidden"]),
            helper.make_node("Relu", ["hidden"], ["active"]),
            helper.make_node("Gemm", ["active", "w2", "b2"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["probs"], axis=-1),
        ],
        "digits",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 64])],
        [helper.make_tensor_value_info("probs", TensorProto.FLOAT, ["N", CLASSES])],
        [numpy_helper.from_array(v.astype(np.float32), name) for name, v in names.items()],
    )
    model = helper.make_model(
        graph,
        producer_name="pilotwave-examples",
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=9,
    )
    helper.set_model_props(model, {"version": version, "task": "digits"})
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))


def to_selftest(net: Network, golden: Bytes) -> bytes:
    """Golden cases: `input.x` [cases, 64] and `output.probs` [cases, 10], both float32."""
    x = scaled(golden)
    tensors = {
        "input.x": x.astype(np.float32),
        "output.probs": net.probs(x).astype(np.float32),
    }
    # One metadata key only: safetensors does not fix the order of several.
    return save(tensors, metadata={"cases": str(len(golden))})


def build(data: Data, versions: Mapping[str, Version]) -> dict[str, bytes]:
    """All files, by path below this folder."""
    held_out = {"label": data.held_out[1], "clean": data.held_out[0], "in_use": data.in_use}
    files = {"held_out.safetensors": save(held_out)}
    for name, version in versions.items():
        files[f"{name}/model.onnx"] = to_onnx(version.shipped, name)
        files[f"{name}/selftest.safetensors"] = to_selftest(version.intended, data.golden[0])
    return files


def accuracy(net: Network, levels: Bytes, labels: Bytes) -> float:
    return float((net.probs(scaled(levels)).argmax(axis=1) == labels).mean())


def print_accuracies(data: Data, versions: Mapping[str, Version]) -> None:
    x, y = data.held_out
    print(
        f"trained on {len(data.train[1])} images (1.3.0: {len(data.golden[1])}), held out {len(y)}"
    )
    print(f"{'version':8} {'golden':>8} {'held out':>9} {'in use':>8}")
    for name, version in versions.items():
        net = version.shipped
        golden = accuracy(net, *data.golden)
        clean, in_use = accuracy(net, x, y), accuracy(net, data.in_use, y)
        print(f"{name:8} {golden:8.1%} {clean:9.1%} {in_use:8.1%}")


def wrong_cases(model: bytes, selftest: bytes) -> tuple[int, int]:
    """Run the golden cases in onnxruntime: how many are off by more than TOLERANCE, of all."""
    import onnxruntime

    cases = load(selftest)
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    (got,) = session.run(["probs"], {"x": cases["input.x"]})
    off = np.abs(got - cases["output.probs"]).max(axis=1) > TOLERANCE
    return int(off.sum()), len(off)


def check(files: Mapping[str, bytes], versions: Mapping[str, Version]) -> list[str]:
    """What is wrong with the committed files; empty if nothing."""
    faults = []
    for path, wanted in files.items():
        file = HERE / path
        if not file.is_file():
            faults.append(f"{path} is missing; run train.py without --check to write it")
        elif file.read_bytes() != wanted:
            faults.append(f"{path} differs from what this script makes")
    for name, version in versions.items():
        wrong, cases = wrong_cases(
            files[f"{name}/model.onnx"], files[f"{name}/selftest.safetensors"]
        )
        print(f"{name}: onnxruntime differs on {wrong} of {cases} golden cases")
        if version.shipped is version.intended and wrong:
            faults.append(f"{name} should reproduce its golden cases; {wrong} of {cases} differ")
        if version.shipped is not version.intended and not 0 < wrong < cases:
            faults.append(f"{name} should differ on a part of its golden cases, not on {wrong}")
    return faults


def main() -> int:
    parser = argparse.ArgumentParser(description="Train the example detector's versions.")
    parser.add_argument(
        "--check", action="store_true", help="write nothing; compare with the committed files"
    )
    args = parser.parse_args()
    data = load_data()
    versions = train_versions(data)
    print_accuracies(data, versions)
    files = build(data, versions)
    for path, content in files.items():
        print(f"{hashlib.sha256(content).hexdigest()}  {path}  {len(content)} bytes")
        if not args.check:
            (HERE / path).parent.mkdir(exist_ok=True)
            (HERE / path).write_bytes(content)
    faults = check(files, versions) if args.check else []
    for fault in faults:
        print(f"check: {fault}", file=sys.stderr)
    if args.check and not faults:
        print("check: ok")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
