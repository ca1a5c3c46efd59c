"""Tell from what a runtime raised what is wrong: memory, an operator, a version, a shape.

Runtimes have no error codes for these, so their words decide. What no row knows is a failure to
load or to run, by the stage at which it came.
"""

from __future__ import annotations

import re

from pilotwave_protocol.states import Reason

_MOST_READ = 8192  # a model can make its runtime say any length of text
OUT_OF_MEMORY = re.compile(
    r"bad_alloc|bad allocation|MemoryError|Failed to allocate memory|can't allocate memory"
    r"|Cannot allocate memory|not enough memory|out of memory",
    re.IGNORECASE,
)

# In this order: a version that is too new often also says that an operator is not known.
_WORDS = (
    (OUT_OF_MEMORY, Reason.SELFTEST_MEMORY),
    (
        re.compile(
            r"[Oo]pset \d+ is under development|Unsupported model IR version"  # ONNX Runtime
            r"|Unrecognized ONNX operator set|ai\.onnx opset"
            r"|Didn't find op for builtin opcode '\w+' version '\d+'"  # LiteRT, TensorFlow Lite
            r"|unsupported schema version|Unsupported model version"
            r"|IR version|ir_version|format version|PyTorchStreamReader.*version"
            r"|Attempted to read a PyTorch file with version"
            r"|version tag does not match|engine plan file is not compatible"  # TensorRT
        ),
        Reason.SELFTEST_UNSUPPORTED,
    ),
    (
        re.compile(
            r"is not a registered function/op|No Op registered|No opset import for domain"
            r"|unresolved custom op|Unsupported (builtin|custom) op|Op not found"
            r"|not been converted|Cannot create \S+ layer|OpConversionFailure"
            r"|Unknown builtin op|Unknown operator|Missing operator|OperatorMissing"
            r"|following ops cannot be found|[Cc]ould not find (schema|any similar ops)"
            r"|[Oo]perator .{0,80}(not (found|registered|supported|implemented)|missing)"
        ),
        Reason.SELFTEST_OPERATOR,
    ),
    (
        re.compile(
            r"ShapeInferenceError|[Dd]imension mismatch|INVALID_ARGUMENT.*[Gg]ot invalid dimensions"
            r"|[Ss]hape.{0,40}(mismatch|incompatible|not compatible)|[Ii]ncompatible shape"
            r"|shapes cannot be multiplied|Invalid (rank|number of features)"
        ),
        Reason.SELFTEST_SCHEMA,
    ),
)


WHEN = {
    "start": "while the runtime started",
    "format": "while its format was checked",
    "load": "while it was loaded",
    "run": "while it ran",
    "io": "while its inputs and outputs were read",
    "compare": "when its answers were compared with the expected ones",
    "close": "while it was closed",
}
"""Each stage of a test, as the worker enters it, in words."""


def reason_of(e: BaseException, stage: str) -> Reason:
    """Return what `e`, raised at `stage`, says of the model."""
    known = getattr(e, "reason", None)
    if isinstance(known, Reason):
        return known
    if isinstance(e, MemoryError):
        return Reason.SELFTEST_MEMORY
    if isinstance(e, ImportError) and stage == "start":
        return Reason.RUNTIME_MISSING
    if isinstance(e, TimeoutError):
        return Reason.SELFTEST_TIMEOUT
    text = shortened(f"{type(e).__name__} {words(e)}", _MOST_READ)
    by_words = next((reason for pattern, reason in _WORDS if pattern.search(text)), None)
    return by_words or (Reason.SELFTEST_LOAD if stage == "load" else Reason.SELFTEST_ERROR)


def words(e: BaseException) -> str:
    """Return what an exception says on one line; a runtime's message can be undecodable."""
    try:
        return " ".join(str(e).split()) or type(e).__name__
    except Exception:
        return type(e).__name__


def shortened(text: str, limit: int = 400) -> str:
    """Keep both ends: some runtimes begin with what matters, others with a page of C++ names."""
    half = limit // 2
    return text if len(text) <= limit else f"{text[:half]} … {text[-half:]}"
