"""What a tool is told, and the inputs that it calibrates on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Task:
    """The ONNX model to read, the `.npz` to calibrate on, the file to write.

    `shapes` are the model's inputs; `options` what else a tool may be told.
    """

    model: Path
    calibration: Path
    out: Path
    shapes: Mapping[str, tuple[int, ...]]
    options: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, words: Mapping[str, Any]) -> Task:
        """Read what `run_tool` wrote."""
        shapes = {name: tuple(shape) for name, shape in words["shapes"].items()}
        model, calibration, out = (Path(words[key]) for key in ("model", "calibration", "out"))
        return cls(model, calibration, out, shapes, words["options"])

    def calls(self, most: int | None = None) -> Iterator[dict[str, NDArray[Any]]]:
        """Yield the inputs of one call after the other, each by name: one row, or as many as a
        fixed batch takes. `most` rows at most, spread over all of them."""
        with np.load(self.calibration, allow_pickle=False) as file:
            arrays = {name: file[name] for name in self.shapes}
        rows = len(next(iter(arrays.values())))
        batched = {n: a.ndim == len(self.shapes[n]) for n, a in arrays.items()}
        batch = max([1, *(self.shapes[n][0] for n, whole in batched.items() if whole)])
        chosen = np.linspace(0, rows - 1, min(most or rows, rows)).astype(int)
        for start in range(0, len(chosen), batch):
            # the last ones again where a fixed batch is not full
            part = np.resize(chosen[start : start + batch], batch)
            yield {n: a[part] if batched[n] else a[part[0]] for n, a in arrays.items()}
