"""What every runtime's adapter offers to the self-test: load, describe, run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True)
class Tensor:
    """An input or output as the loaded model describes it. -1 is a dimension that may vary."""

    name: str
    dtype: str
    shape: tuple[int, ...]


class Loaded(Protocol):
    """A model in its runtime. Every method may raise whatever the runtime raises."""

    @property
    def inputs(self) -> Sequence[Tensor]: ...
    @property
    def outputs(self) -> Sequence[Tensor]: ...
    def run(self, feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        """Return the outputs for one set of inputs."""
        ...


class Adapter(Protocol):
    """An adapter module: `load` opens a variant's entrypoint with so many threads."""

    def load(self, entrypoint: Path, *, threads: int) -> Loaded: ...


def zeros(tensor: Tensor) -> Array:
    """Return an input of zeros, each dimension that may vary being 1."""
    return np.zeros([1 if n < 0 else n for n in tensor.shape], np.dtype(tensor.dtype))
