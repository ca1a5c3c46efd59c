"""What a look into a model file yields, whatever its format."""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pilotwave_protocol.formats import COMMAND

DYNAMIC = -1

_PRECISIONS = {
    "float32": "fp32",
    "float64": "fp64",
    "float16": "fp16",
    "bfloat16": "bf16",
    "int8": "int8",
    "uint8": "int8",
    "int16": "int16",
    "int4": "int4",
    "uint4": "int4",
    "int2": "int2",
    "uint2": "int2",
}


@dataclass(frozen=True)
class Tensor:
    """An input or output. `shape` holds -1 for a dynamic size and is None for an unknown rank.

    `name` is "" where the format has none and counts by position.
    """

    name: str
    dtype: str
    shape: tuple[int, ...] | None

    def admits(self, shape: tuple[int, ...]) -> bool:
        """Say whether `shape` could be meant: a dynamic size on either side matches any."""
        if self.shape is None:
            return True
        if len(self.shape) != len(shape):
            return False
        return all(a == b or DYNAMIC in (a, b) for a, b in zip(self.shape, shape, strict=True))


@dataclass(frozen=True)
class Sniffed:
    """One model file as its bytes describe it.

    `runtime` is None where no runtime of a device loads the format. `unsafe` holds the reason
    why loading the file may run code that came with it, None where it cannot.
    `needs` are the paths, relative to the file, without which it does not load, each with the least
    number of bytes it must have. `arch` and `accelerator` are what it was compiled for, if any.
    `details` are words for people (producer, opset, ...), never decisions.
    """

    format: str
    runtime: str | None
    runtime_version: str | None = None
    unsafe: str | None = None
    inputs: tuple[Tensor, ...] = ()
    outputs: tuple[Tensor, ...] = ()
    needs: Mapping[str, int] = field(default_factory=dict)
    arch: str | None = None
    accelerator: str | None = None
    precision: str | None = None
    details: Mapping[str, str | int] = field(default_factory=dict)


def missing_companion(
    found: Sniffed, entrypoint: str, sizes: Mapping[str, int | None]
) -> str | None:
    """Say which file that `found` needs is not there or too short; None if all are.

    `sizes` maps the paths of a variant to their sizes in bytes, `entrypoint` is one of them.
    """
    for needed, least in found.needs.items():
        path = posixpath.normpath(posixpath.join(posixpath.dirname(entrypoint), needed))
        size = sizes.get(path)
        if size is None:
            return f"{entrypoint} needs {needed}, which is not there"
        if size < least:
            return f"{entrypoint} needs {least} bytes of {needed}, which has {size}: it is cut off"
    return None


def compiled_for(runtime: str, entrypoint: Sniffed, files: Iterable[Sniffed]) -> str | None:
    """Return the chip without which a variant of these files cannot run: its entry point's; of a
    program's, that of all models beside it, if it is one."""
    if entrypoint.accelerator or runtime != COMMAND:
        return entrypoint.accelerator
    chips = {f.accelerator for f in files if f.accelerator or f.runtime}
    return chips.pop() if len(chips) == 1 else None


def main_precision(weights: Counter[str]) -> str | None:
    """Return the precision that most weights have, from elements counted by dtype."""
    known = Counter[str]()
    for dtype, elements in weights.items():
        if dtype in _PRECISIONS:
            known[_PRECISIONS[dtype]] += elements
    return known.most_common(1)[0][0] if known else None
