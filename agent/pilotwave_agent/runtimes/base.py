"""What every runtime's adapter offers: load, describe, run, close.

A self-test's worker and an application (`live`) use the same. It imports nothing that costs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from pilotwave_protocol.tensortypes import BFLOAT16, STRING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Array: TypeAlias = "NDArray[Any]"


@dataclass(frozen=True)
class Tensor:
    """An input or output. -1 in `shape` is a size that may vary; None is a rank that nobody knows.

    `scale` and `zero_point` tell what an integer stands for: real = scale (integer - zero_point);
    a scale of 0 stands for itself.
    """

    name: str
    dtype: str
    shape: tuple[int, ...] | None
    scale: float = 0.0
    zero_point: int = 0


@dataclass(frozen=True)
class Info:
    """What a loaded model runs on: runtime, its version, the device that computes, other words."""

    runtime: str
    version: str
    device: str = "cpu"
    details: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Options:
    """How to load. Every runtime understands what it can and passes over the rest.

    `devices` are preferred in order: execution providers, OpenVINO devices, delegate libraries.
    `inputs` and `outputs` are the manifest's, for files that do not describe themselves.
    `cache` is a folder for what is compiled on this device (engines); None keeps nothing.
    """

    threads: int = 1
    devices: tuple[str, ...] = ()
    inputs: tuple[Tensor, ...] = ()
    outputs: tuple[Tensor, ...] = ()
    cache: Path | None = None
    precision: str = ""
    timeout_s: float = 60.0


class Runner(Protocol):
    """A model in its runtime. Every method may raise whatever the runtime raises.

    Calls from several threads at once are the caller's to prevent, but for a runner whose attribute
    `concurrent` is true. One with a method `cancel` breaks off its running calls, from any thread.
    """

    @property
    def inputs(self) -> Sequence[Tensor]: ...
    @property
    def outputs(self) -> Sequence[Tensor]: ...
    @property
    def info(self) -> Info: ...
    def run(self, feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        """Return the outputs for one set of inputs, each by its name. They are the caller's."""

    def close(self) -> None:
        """Give back memory, devices, processes. A second time does nothing."""


class Adapter(Protocol):
    """An adapter module: `load` opens a variant's entrypoint."""

    def load(self, file: Path, options: Options) -> Runner: ...


class CannotLoad(Exception):
    """The runtime will not have this file; the sentence says why."""


def zeros(tensor: Tensor) -> Array:
    """Return an input of zeros (texts: empty), each dimension that may vary being 1."""
    import numpy as np

    shape = [1 if n < 0 else n for n in tensor.shape or ()]
    if tensor.dtype == STRING:
        return np.full(shape, "", object)
    return np.zeros(shape, np.dtype("float32" if tensor.dtype == BFLOAT16 else tensor.dtype))


def dtype_name(dtype: np.dtype[Any] | type) -> str:
    """Return a numpy type's name as manifests write it."""
    import numpy as np

    return str(np.dtype(dtype))
