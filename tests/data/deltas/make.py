"""Make the golden deltas that are not there; all of them only for a new version of the format."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[2]))

from pilotwave_deltas.generate import generate  # noqa: E402 - the path is set just above
from tests.deltas.pairs import bfloat16, tuned, weights  # noqa: E402

KINDS = ("int8", "float16", "float32", "float64", "bfloat16", "text", "moved", "empty", "quarters")
SCALED = ("scaled-int8", "scaled-float16", "scaled-bfloat16", "scaled-float32")


def main() -> None:
    cases = json.loads((HERE / "cases.json").read_text())
    for kind in (*KINDS, *SCALED):
        if (HERE / f"{kind}.delta").exists():
            continue
        old, new = scaled(kind) if kind in SCALED else pair(kind)
        (HERE / f"{kind}.old").write_bytes(old)
        (HERE / "new.tmp").write_bytes(new)
        generate(HERE / f"{kind}.old", HERE / "new.tmp", HERE / f"{kind}.delta")
        (HERE / "new.tmp").unlink()
        sha256 = hashlib.sha256(new).hexdigest()
        cases.append({"delta": f"{kind}.delta", "old": f"{kind}.old", "sha256": sha256})
    (HERE / "cases.json").write_text(json.dumps(cases, indent=1) + "\n")


def pair(kind: str) -> tuple[bytes, bytes]:
    if kind == "text":
        old = b"".join(b"line %d of a text\n" % (i * i % 997) for i in range(800))
        return old, old[:5000] + b"one more line\n" + old[5000:]
    if kind == "empty":
        return b"", weights(1500, 3, "float32").tobytes()
    if kind == "moved":
        old = weights(4000, 4, "float32").tobytes()
        return old, old[:4000] + b"inserted" + old[4000:]
    if kind == "quarters":  # four values a byte pay where most of them are 0, 1 or 2
        steps = np.random.default_rng(5).choice(5, 8000, p=[0.1, 0.74, 0.1, 0.03, 0.03])
        old = weights(8000, 1, "int8") // 2
        return old.tobytes(), (old + steps.astype(np.int8) - 1).tobytes()
    old = weights(4001, 1, "float32" if kind == "bfloat16" else kind)
    new = tuned(old, 2)
    old[1000:2000] = new[1000:2000] = np.zeros(1000, old.dtype)
    if kind == "bfloat16":
        return bfloat16(old), bfloat16(new)
    return b"ab" + old.tobytes(), b"abc" + new.tobytes()


def scaled(kind: str) -> tuple[bytes, bytes]:
    """Rows of 64 weights, each scaled by a factor of its own, as when norms are folded in."""
    dtype = kind.rpartition("-")[2]
    wide = "float32" if dtype == "bfloat16" else dtype
    old = weights(64 * 64, 5, wide)
    factors = np.repeat(np.random.default_rng(6).normal(1, 0.2, 64), 64)
    values = old.astype(np.float64) * factors
    if dtype == "int8":
        return old.tobytes(), np.clip(np.rint(values), -127, 127).astype(np.int8).tobytes()
    new = values.astype(wide)
    return (bfloat16(old), bfloat16(new)) if dtype == "bfloat16" else (old.tobytes(), new.tobytes())


if __name__ == "__main__":
    main()
