"""What an application sends to have an example kept: what its inputs are on one line, and then
their bytes, one input behind the other.

    {"schema": "pilotwave/label/1", "model", "label", "source"?, "inputs": [{name, dtype, shape}]}
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from pilotwave_agent.live.labels import INPUT, LABEL, SOURCE
from pilotwave_protocol import names, strictjson
from pilotwave_protocol.errors import BadJson, BadMessage
from pilotwave_protocol.fields import Fields
from pilotwave_protocol.safetensors import BYTES, Stored, size_of, write_safetensors

MAX_HEAD_BYTES = 16 << 10
_SCHEMA = "pilotwave/label/1"
_MAX_INPUTS = 64
_MAX_DIMENSIONS = 8
_MAX_LABEL = 2**31 - 1


class Given(NamedTuple):
    """One input: its elements are little-endian, row by row."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """How many bytes it has."""
        return size_of(self.dtype, self.shape)


@dataclass(frozen=True)
class Labelled:
    """An example of class `label`. `source` says what the label comes from; it may say nothing."""

    model: str
    label: int
    source: str
    inputs: tuple[Given, ...]

    @property
    def size(self) -> int:
        """How many bytes follow the line."""
        return sum(given.size for given in self.inputs)

    def example(self, raw: bytes) -> bytes:
        """Write it as applications leave it in a file."""
        about = {SOURCE: self.source} if self.source else None
        return write_safetensors(self._stored(raw), about)

    def _stored(self, raw: bytes) -> Iterator[Stored]:
        at = 0
        for given in self.inputs:
            part = raw[at : at + given.size]
            yield Stored(f"{INPUT}{given.name}", given.dtype, given.shape, part)
            at += given.size
        yield Stored(LABEL, "int64", (1,), self.label.to_bytes(8, "little"))


def parse_label(line: bytes) -> Labelled:
    """Read the line, or raise `BadMessage` with what was expected."""
    try:
        f = Fields(strictjson.loads(line, max_bytes=MAX_HEAD_BYTES, max_depth=4), "", BadMessage)
    except BadJson as e:
        raise BadMessage(f"label: {e}") from e
    if f.raw("schema") != _SCHEMA:
        raise f.fail("schema", _SCHEMA, f.raw("schema"))
    found = Labelled(
        model=f.named("model", names.check_model),
        label=f.integer("label", high=_MAX_LABEL),
        source=f.opt_named("source", names.check_label_source) or "",
        inputs=tuple(_given(item) for item in f.objects("inputs", limit=_MAX_INPUTS)),
    )
    f.done()
    called = {given.name for given in found.inputs}
    if not called or len(called) < len(found.inputs):
        raise f.fail("inputs", "one or more, each name once", sorted(called))
    return found


def _given(f: Fields) -> Given:
    name, dtype = f.text("name", limit=256), f.text("dtype", limit=16)
    shape = f.items("shape", limit=_MAX_DIMENSIONS)
    if dtype not in BYTES:
        raise f.fail("dtype", f"one of {', '.join(sorted(BYTES))}", dtype)
    if not name:
        raise f.fail("name", "the input's name", name)
    if not all(type(n) is int and 0 < n < 2**31 for n in shape):
        raise f.fail("shape", "whole numbers from 1 on", shape)
    f.done()
    return Given(name, dtype, tuple(shape))
