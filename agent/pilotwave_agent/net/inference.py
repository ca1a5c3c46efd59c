"""Ask a model server one question by the Open Inference Protocol (KServe v2) over HTTP.

Tensors go in the binary extension where the server says that it knows it, else as JSON numbers.
What comes back is believed no further than it can be checked: names, types, shapes and sizes are
those of the small model's own outputs, and every number is finite.

https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pilotwave_agent.net.http import BadAnswer, Channel, HttpAnswer, TooSlow
from pilotwave_protocol import strictjson
from pilotwave_protocol.errors import ProtocolError
from pilotwave_protocol.fields import Fields

Array = NDArray[Any]
BINARY = "binary_tensor_data"
HEADER = "Inference-Header-Content-Length"
_JSON = {"Content-Type": "application/json"}
_OCTETS = "application/octet-stream"
_MAX_WORDS = 64 << 10
_MAX_NUMBER = 32  # characters of a number in JSON, its comma included
_MAX_OUTPUTS = 64
_DATATYPES = {
    "bool": "BOOL", "uint8": "UINT8", "uint16": "UINT16", "uint32": "UINT32", "uint64": "UINT64",
    "int8": "INT8", "int16": "INT16", "int32": "INT32", "int64": "INT64",
    "float16": "FP16", "float32": "FP32", "float64": "FP64",
}  # fmt: skip
_BY_DATATYPE = {word: np.dtype(name).newbyteorder("<") for name, word in _DATATYPES.items()}


class BadInference(ProtocolError):
    """The answer of a model server is not one to the question."""

    code = "bad_inference"


@dataclass(frozen=True)
class Question:
    """One call: which model, in which version if that matters, its inputs, and the outputs that are
    wanted, each with an array of the type and shape that it has to have."""

    model: str
    version: str | None
    inputs: Mapping[str, Array]
    outputs: Mapping[str, Array]

    @property
    def size(self) -> int:
        """How many bytes the inputs are."""
        return sum(array.nbytes for array in self.inputs.values())

    @property
    def max_answer(self) -> int:
        """How many bytes an answer may be, in either form."""
        return _MAX_WORDS + _MAX_NUMBER * sum(array.size for array in self.outputs.values())


@dataclass(frozen=True)
class Inferred:
    """An answer that was checked, and the version that the server says it is of."""

    outputs: Mapping[str, Array]
    version: str


class InferenceServer:
    """One server. Not safe for threads: it keeps one connection open."""

    def __init__(self, url: str, *, pin: str = "") -> None:
        self._url, self._pin = url, pin
        self._channel: Channel | None = None
        self._binary: bool | None = None

    def ask(self, question: Question, within_s: float) -> Inferred:
        """Return the answer. Raises `Unreachable`, `BadAnswer`, `BadInference`."""
        ends = time.monotonic() + within_s
        if self._channel is None:
            self._channel = Channel(self._url, gap_s=within_s, deadline_s=within_s, pin=self._pin)
        if self._binary is None:
            self._binary = self._knows_binary(within_s)
        left = ends - time.monotonic()
        if left <= 0:
            raise TooSlow("the server took too long to answer")
        body, headers = request_of(question, binary=self._binary)
        answer = self._channel.request(
            "POST",
            f"/v2/models/{question.model}/infer",
            headers=headers,
            body=body,
            max_body=question.max_answer,
            deadline_s=left,
        )
        return read_answer(question, answer)

    def _knows_binary(self, within_s: float) -> bool:
        """Ask for the server's extensions; one that does not say has none."""
        assert self._channel is not None
        answer = self._channel.request("GET", "/v2", deadline_s=within_s)
        if answer.status != 200:
            return False
        try:
            said = strictjson.loads(answer.body, max_bytes=_MAX_WORDS)
        except ProtocolError:
            return False
        extensions = said.get("extensions") if isinstance(said, dict) else None
        return isinstance(extensions, list) and BINARY in extensions

    def close(self) -> None:
        """Close the connection."""
        if self._channel is not None:
            self._channel.close()
        self._channel = None


def request_of(question: Question, *, binary: bool) -> tuple[bytes, dict[str, str]]:
    """Return the body of a question and its headers. Raises `BadInference` for inputs that no
    datatype of the protocol stands for."""
    inputs, parts = [], []
    for name, array in question.inputs.items():
        datatype = _DATATYPES.get(str(array.dtype))
        if datatype is None:
            raise BadInference(f"input {name}: expected numbers; got {array.dtype}")
        entry: dict[str, Any] = {"name": name, "datatype": datatype, "shape": list(array.shape)}
        if binary:
            raw = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<")).tobytes()
            entry["parameters"] = {"binary_data_size": len(raw)}
            parts.append(raw)
        else:
            entry["data"] = array.ravel().tolist()
        inputs.append(entry)
    wanted = [{"name": name, "parameters": {"binary_data": binary}} for name in question.outputs]
    words = json.dumps({"inputs": inputs, "outputs": wanted}).encode()
    if not binary:
        return words, dict(_JSON)
    return words + b"".join(parts), {"Content-Type": _OCTETS, HEADER: str(len(words))}


def read_answer(question: Question, answer: HttpAnswer) -> Inferred:
    """Check an answer and return what it says. Raises `BadAnswer`, `BadInference`, `BadJson`."""
    if answer.status != 200:
        said = ascii(answer.body[:200].decode(errors="replace"))
        raise BadAnswer(f"{question.model}: the model server answered {answer.status}: {said}")
    words, rest = _split(answer)
    f = Fields(strictjson.loads(words, max_bytes=len(words)), "answer", BadInference)
    version = _check_who(question, f)
    found: dict[str, Array] = {}
    for output in f.objects("outputs", limit=_MAX_OUTPUTS):
        name = output.text("name")
        array, rest = _tensor(output, rest)
        if name in found:
            raise output.fail("name", "each output once", name)
        found[name] = array
    if rest:
        raise BadInference(f"answer: expected {len(answer.body) - len(rest)} bytes; got more")
    return Inferred(dict(_fitted(question.outputs, found)), version)


def _split(answer: HttpAnswer) -> tuple[bytes, bytes]:
    """Return the JSON and the binary tensors behind it."""
    length = answer.headers.get(HEADER.lower())
    if length is None:
        return answer.body, b""
    if not length.isascii() or not length.isdigit() or len(length) > 12:
        raise BadInference(f"{HEADER}: expected a number of bytes; got {ascii(length)[:40]}")
    if int(length) > len(answer.body):
        raise BadInference(f"{HEADER}: expected at most {len(answer.body)}; got {length}")
    return answer.body[: int(length)], answer.body[int(length) :]


def _check_who(question: Question, f: Fields) -> str:
    """Return which version answered, if it is one that may. A server that counts its versions by
    itself, as Triton does, has a number of its own in place of the version."""
    model, version = f.text("model_name"), f.raw("model_version", None) or ""
    if model != question.model:
        raise f.fail("model_name", question.model, model)
    if not isinstance(version, str) or len(version) > 128 or not version.isprintable():
        raise f.fail("model_version", "a version", version)
    if question.version not in (None, version) and not (version.isdecimal() or version == ""):
        raise f.fail("model_version", str(question.version), version)
    return version


def _tensor(f: Fields, rest: bytes) -> tuple[Array, bytes]:
    """Return an output, and the binary data behind it."""
    dtype = _BY_DATATYPE.get(f.text("datatype", limit=16))
    if dtype is None:
        raise f.fail("datatype", "one of numbers", f.raw("datatype"))
    shape = f.items("shape", limit=16)
    if not all(type(n) is int and 0 <= n < 1 << 31 for n in shape):
        raise f.fail("shape", "whole numbers", shape)
    parameters = f.opt_inner("parameters")
    size = parameters.raw("binary_data_size", None) if parameters else None
    count = math.prod(shape)
    if size is not None:
        if type(size) is not int or size != count * dtype.itemsize or size > len(rest):
            raise f.fail("parameters", f"{count * dtype.itemsize} bytes of binary data", size)
        return np.frombuffer(rest[:size], dtype).reshape(shape), rest[size:]
    return _from_json(f, dtype, count).reshape(shape), rest


def _from_json(f: Fields, dtype: np.dtype[Any], count: int) -> Array:
    try:
        array = np.array(f.raw("data")).ravel()
    except ValueError as e:
        raise f.fail("data", "numbers", "lists of unlike lengths") from e
    if array.dtype.kind not in "biuf" or array.size != count:
        raise f.fail("data", f"{count} numbers", f"{array.size} of {array.dtype}")
    with np.errstate(all="ignore"):
        cast = array.astype(dtype)
    if dtype.kind != "f" and not (cast == array).all():
        raise f.fail("data", f"numbers that {dtype.name} can hold", "others")
    return cast


def _fitted(wanted: Mapping[str, Array], found: Mapping[str, Array]) -> Iterator[tuple[str, Array]]:
    """Yield each output as the small model's own is: of its shape and type, and finite."""
    for name, own in wanted.items():
        array = found.get(name)
        if array is None:
            raise BadInference(f"answer: expected an output {name}; got {sorted(found)!r:.80}")
        floats = own.dtype.kind == array.dtype.kind == "f"
        if array.shape != own.shape or not (floats or array.dtype == own.dtype):
            raise BadInference(
                f"output {name}: expected {own.dtype} {list(own.shape)}; "
                f"got {array.dtype} {list(array.shape)}"
            )
        with np.errstate(all="ignore"):
            cast = array.astype(own.dtype)
        if floats and not np.isfinite(cast).all():
            raise BadInference(f"output {name}: expected finite numbers; got NaN or infinity")
        yield name, cast
