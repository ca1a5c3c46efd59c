"""Train a model on with labelled cases: what `pilotwave captures pull` wrote, labels filled in.

    python -m examples.loop.retrain MODEL.onnx CASES OWN.npz VERSION

Writes `model.onnx`, and what `pilotwave optimize` takes: `cal.npz` and, of inputs that nothing was
trained on, `test.npz`. One's own images (`x`, `labels`) are trained on again beside the cases, for
a model that sees only what it found hard forgets the rest.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
from safetensors.numpy import load_file

from examples.digits.train import Network, descend, to_onnx

KEPT = 3  # each third input judges


def labelled(cases: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the inputs [N, 64] and labels [N] of the cases to which a person gave a label."""
    rows = [json.loads(line) for line in (cases / "cases.jsonl").read_text().splitlines()]
    rows = [row for row in rows if row["label"] is not None]
    x = np.concatenate([load_file(cases / row["file"])["input.x"] for row in rows])
    return x, np.array([row["label"] for row in rows])


def network(model: Path) -> Network:
    weights = {w.name: numpy_helper.to_array(w) for w in onnx.load(model).graph.initializer}
    return Network(*(weights[name].astype(np.float64) for name in ("w1", "b1", "w2", "b2")))


def main(model: Path, cases: Path, own: Path, version: str) -> None:
    x, labels = labelled(cases)
    with np.load(own) as file:
        x, labels = np.concatenate([file["x"], x]), np.concatenate([file["labels"], labels])
    x, first = np.unique(x, axis=0, return_index=True)  # else one may be trained on, and judge too
    labels = labels[first]
    judges = np.arange(len(x)) % KEPT == 0
    seen, known = x[~judges], labels[~judges]
    rng = np.random.RandomState(3)
    better = descend(network(model), seen.astype(np.float64), known, epochs=60, rate=0.02, rng=rng)
    Path("model.onnx").write_bytes(to_onnx(better, version))
    np.savez("cal.npz", x=rng.permutation(seen)[:200])
    np.savez("test.npz", x=x[judges], labels=labels[judges])


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]), sys.argv[4])
