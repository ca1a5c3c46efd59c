"""Read a GGUF file, as llama.cpp opens: what model it holds, and whether all its tensors are there.

The layout is ggml's (docs/gguf.md): counts, keys with typed values, descriptions of tensors, their
data. Numbers are little-endian; the versions before 2 and big-endian files are refused.
"""

from __future__ import annotations

import math
import struct
from collections import Counter

from pilotwave_protocol.sniff.errors import BadModel
from pilotwave_protocol.sniff.facts import Sniffed

MARK = b"GGUF"
# types of values: struct letters; the bytes of each are known, so that arrays are stepped over
_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q",
            12: "d"}  # fmt: skip
_FLOATS, _TEXT, _ARRAY = (6, 12), 8, 9
# types of tensors: name, elements in a block, bytes of a block
_TENSORS = {
    0: ("fp32", 1, 4), 1: ("fp16", 1, 2), 2: ("q4_0", 32, 18), 3: ("q4_1", 32, 20),
    6: ("q5_0", 32, 22), 7: ("q5_1", 32, 24), 8: ("q8_0", 32, 34), 10: ("q2_k", 256, 84),
    11: ("q3_k", 256, 110), 12: ("q4_k", 256, 144), 13: ("q5_k", 256, 176),
    14: ("q6_k", 256, 210), 16: ("iq2_xxs", 256, 66), 17: ("iq2_xs", 256, 74),
    18: ("iq3_xxs", 256, 98), 19: ("iq1_s", 256, 50), 20: ("iq4_nl", 32, 18),
    21: ("iq3_s", 256, 110), 22: ("iq2_s", 256, 82), 23: ("iq4_xs", 256, 136),
    24: ("int8", 1, 1), 25: ("int16", 1, 2), 26: ("int32", 1, 4), 27: ("int64", 1, 8),
    28: ("fp64", 1, 8), 29: ("iq1_m", 256, 56), 30: ("bf16", 1, 2), 34: ("tq1_0", 256, 54),
    35: ("tq2_0", 256, 66), 39: ("mxfp4", 32, 17), 40: ("nvfp4", 64, 36), 41: ("q1_0", 128, 18),
}  # fmt: skip
_MAX_COUNT = 1 << 20
_MAX_ITEMS = 4 << 20
_MAX_KEY, _MAX_WORD = 1024, 256
_MAX_DIMS = 4


def read_gguf(data: memoryview) -> Sniffed:
    """Describe a model from its bytes; raise BadModel if they are not one."""
    reader = _Reader(data, at=len(MARK))
    version = reader.number("I")
    if version not in (2, 3):
        raise BadModel(f"GGUF version {version} is not known here; expected 2 or 3, little-endian")
    tensors, keys = reader.number("Q"), reader.number("Q")
    if max(tensors, keys) > _MAX_COUNT:
        raise BadModel(f"it counts {tensors} tensors and {keys} keys; at most {_MAX_COUNT} fit")
    said: dict[str, str | int] = {}
    for _ in range(keys):
        name = reader.text(_MAX_KEY)
        value = reader.value()
        if value is not None:
            said[name] = value
    architecture = said.get("general.architecture")
    if not isinstance(architecture, str):
        raise BadModel("it names no architecture (general.architecture)")
    weights = _check_tensors(reader, tensors, _alignment(said))
    most = weights.most_common(1)
    words: dict[str, str | int | None] = {
        "version": version,
        "architecture": architecture,
        "name": said.get("general.name"),
        "context": said.get(f"{architecture}.context_length"),
        "tokenizer": said.get("tokenizer.ggml.model"),
        "parts": said.get("split.count"),
        "tensors": tensors,
    }
    return Sniffed(
        format="gguf",
        runtime="llama.cpp",
        precision=most[0][0] if most else None,
        details={name: word for name, word in words.items() if word},
    )


def _alignment(said: dict[str, str | int]) -> int:
    found = said.get("general.alignment", 32)
    if not isinstance(found, int) or not 0 < found <= 1 << 20:
        raise BadModel("its alignment is no number that can be meant")
    return found


def _check_tensors(reader: _Reader, count: int, alignment: int) -> Counter[str]:
    """Step over the descriptions; return elements by type. Each tensor's data must be there."""
    weights, end = Counter[str](), 0
    for _ in range(count):
        reader.text(_MAX_KEY)
        rank = reader.number("I")
        if rank > _MAX_DIMS:
            raise BadModel(f"a tensor has {rank} dimensions; at most {_MAX_DIMS} have a meaning")
        elements = math.prod(reader.number("Q") for _ in range(rank))
        kind, offset = reader.number("I"), reader.number("Q")
        name, block, size = _TENSORS.get(kind, ("?", 1, 0))
        weights[name] += min(elements, 1 << 62)
        end = max(end, offset + -(-elements // block) * size)
    start = -(-reader.at // alignment) * alignment
    if count and start + end > len(reader.data):
        raise BadModel(f"the file is cut off: {len(reader.data)} bytes of {start + end}")
    del weights["?"]
    return weights


class _Reader:
    """A place in the file, which only moves on."""

    def __init__(self, data: memoryview, at: int) -> None:
        self.data = data
        self.at = at
        self._items = 0

    def number(self, letter: str) -> int:
        size = struct.calcsize(letter)
        place = self.at
        self._step(size)
        found: int = struct.unpack_from("<" + letter, self.data, place)[0]
        return found

    def text(self, limit: int) -> str:
        """Return a text that has to be short and UTF-8."""
        size = self.number("Q")
        if size > limit:
            raise BadModel(f"a name of {size} bytes is longer than {limit}")
        place = self.at
        self._step(size)
        try:
            return bytes(self.data[place : self.at]).decode()
        except UnicodeDecodeError as e:
            raise BadModel("a name is not UTF-8") from e

    def value(self) -> str | int | None:
        """Return a short text or a whole number; None for others, which are stepped over."""
        kind = self.number("I")
        if kind == _TEXT:
            return self._word()
        if kind == _ARRAY:
            self._array()
            return None
        if kind not in _NUMBERS:
            raise BadModel(f"a value has type {kind}, which GGUF does not define")
        found = self.number(_NUMBERS[kind])
        return None if kind in _FLOATS else found

    def _word(self) -> str | None:
        size = self.number("Q")
        place = self.at
        self._step(size)
        if size > _MAX_WORD:
            return None
        return bytes(self.data[place : self.at]).decode(errors="replace")

    def _array(self) -> None:
        kind, count = self.number("I"), self.number("Q")
        if kind in _NUMBERS:
            self._step(count * struct.calcsize(_NUMBERS[kind]))
            return
        self._items += count
        if kind != _TEXT or self._items > _MAX_ITEMS:
            raise BadModel(f"a list of {count} values of type {kind} is more than any model has")
        for _ in range(count):
            self._step(self.number("Q"))

    def _step(self, size: int) -> None:
        if size > len(self.data) - self.at:
            raise BadModel("it is cut off in its description")
        self.at += size
