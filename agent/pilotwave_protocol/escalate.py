"""`escalate.json`: when a small model hands an input to a bigger one, as its publisher signed it.

It lies among a variant's files, so the signature over them covers it, and an agent of before it
passes over it. It says which model may be asked, never where: that is the device owner's to say.

A call's confidence is one number from 0 to 1 of one output's scores. The desk works the threshold
out with the same function by which devices compare.
"""

from __future__ import annotations

import heapq
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pilotwave_protocol import names, strictjson
from pilotwave_protocol.errors import ProtocolError
from pilotwave_protocol.fields import Fields

ESCALATE = "escalate.json"
"""The file's name, beside the model's entrypoint."""
SCHEMA = "pilotwave/escalate/1"
MAX_ESCALATE_BYTES = 16 << 10
RULES = ("margin", "top", "entropy")
SITE, CLOUD = "site", "cloud"
TIERS = (SITE, CLOUD)
FP32, UINT8 = "fp32", "uint8"
ENCODINGS = (FP32, UINT8)
MAX_TIMEOUT_MS = 60_000
_SHARE = re.compile(r"[01](?:\.\d{1,9})?", re.ASCII)


class BadEscalate(ProtocolError):
    """Not a file that says when inputs are escalated."""

    code = "bad_escalate"


@dataclass(frozen=True)
class Promise:
    """At most `excess` of all inputs are wrong and would have been right at the bigger model, with
    a confidence of 1 - `delta`, worked out from `labelled` inputs. Decimal texts."""

    excess: str
    delta: str
    labelled: int


@dataclass(frozen=True)
class Target:
    """A model that may be asked: at which tier, and its version where only that one may answer."""

    tier: str
    model: str
    version: str | None = None


@dataclass(frozen=True)
class EscalateBudget:
    """At most `share` of all calls and `bytes_per_day` go up. `tracked`: the threshold moves so
    that `share` is met, which gives a promise up."""

    share: str
    bytes_per_day: int
    tracked: bool = False


@dataclass(frozen=True)
class Escalation:
    """What the file says. Inputs whose confidence by `rule` in `output` is below `threshold` go to
    the first of `to` that the device's owner allows. `softmax`: the output holds logits. `encode`:
    floats go as 32 bits, or, from 0 to 1, as bytes from 0 to 255."""

    rule: str
    output: str
    softmax: bool
    threshold: str
    promise: Promise | None
    to: tuple[Target, ...]
    encode: str
    budget: EscalateBudget
    timeout_ms: int

    def to_bytes(self) -> bytes:
        """Write the file."""
        promise, budget = self.promise, self.budget
        said = {
            "schema": SCHEMA,
            "rule": self.rule,
            "output": self.output,
            "softmax": self.softmax,
            "threshold": self.threshold,
            "promise": None if promise is None else dict(vars(promise)),
            "to": [{k: v for k, v in vars(t).items() if v is not None} for t in self.to],
            "encode": self.encode,
            "budget": dict(vars(budget)),
            "timeout_ms": self.timeout_ms,
        }
        return strictjson.dumps(said)


def parse_escalate(raw: bytes) -> Escalation:
    """Read the file. Raises `BadEscalate`, `BadJson`."""
    f = Fields(strictjson.loads(raw, max_bytes=MAX_ESCALATE_BYTES), ESCALATE, BadEscalate)
    _word(f, "schema", (SCHEMA,))
    found = Escalation(
        rule=_word(f, "rule", RULES),
        output=f.text("output", limit=256),
        softmax=f.boolean("softmax"),
        threshold=_share(f, "threshold"),
        promise=_promise(f.opt_inner("promise")),
        to=tuple(_target(t) for t in f.objects("to", limit=len(TIERS))),
        encode=_word(f, "encode", ENCODINGS),
        budget=_budget(f.inner("budget")),
        timeout_ms=f.integer("timeout_ms", low=1, high=MAX_TIMEOUT_MS),
    )
    f.done()
    tiers = [t.tier for t in found.to]
    if not tiers or len(set(tiers)) != len(tiers):
        raise f.fail("to", "one model for each tier, at least one", tiers)
    if found.budget.tracked and found.promise is not None:
        raise f.fail("promise", "null, as a tracked budget gives it up", vars(found.promise))
    return found


def _promise(f: Fields | None) -> Promise | None:
    if f is None:
        return None
    labelled = f.integer("labelled", low=1)
    promise = Promise(_share(f, "excess"), _share(f, "delta"), labelled)
    f.done()
    return promise


def _target(f: Fields) -> Target:
    target = Target(
        tier=_word(f, "tier", TIERS),
        model=f.named("model", names.check_model),
        version=f.opt_named("version", names.check_version),
    )
    f.done()
    return target


def _budget(f: Fields) -> EscalateBudget:
    budget = EscalateBudget(
        share=_share(f, "share"),
        bytes_per_day=f.integer("bytes_per_day", low=1),
        tracked=f.boolean("tracked", default=False),
    )
    f.done()
    return budget


def _word(f: Fields, key: str, words: tuple[str, ...]) -> str:
    found = f.text(key, limit=64)
    if found not in words:
        raise f.fail(key, " or ".join(words), found)
    return found


def _share(f: Fields, key: str) -> str:
    text = f.text(key, limit=16)
    if not _SHARE.fullmatch(text) or float(text) > 1:
        raise f.fail(key, "a decimal number from 0 to 1 as text, like 0.05", text)
    return text


def confidence(scores: Sequence[float], rule: str, *, softmax: bool) -> float | None:
    """Return how sure the scores of one input's classes are, from 0 to 1. None where they tell
    nothing: fewer than two, one that is not finite, or, without `softmax`, no probabilities."""
    if len(scores) < 2 or not all(map(math.isfinite, scores)):
        return None
    shares = _softmax(scores) if softmax else scores
    if min(shares) < 0 or max(shares) > 1.0001:
        return None
    if rule == "top":
        return min(max(shares), 1.0)
    if rule == "margin":
        first, second = heapq.nlargest(2, shares)
        return min(first - second, 1.0)
    spread = -math.fsum(p * math.log(p) for p in shares if p > 0)
    return min(max(1.0 - spread / math.log(len(shares)), 0.0), 1.0)


def _softmax(scores: Sequence[float]) -> list[float]:
    top = max(scores)
    parts = [math.exp(s - top) for s in scores]
    whole = math.fsum(parts)
    return [p / whole for p in parts]


def encoded(array: Any, encode: str) -> Any:
    """Return an input (a numpy array) as it is sent; what holds no floats goes as it is. Raises
    `ValueError` for floats that `encode` cannot hold."""
    import numpy as np  # where an input is, it is; readers of the file alone need none

    if array.dtype.kind != "f":
        return array
    if encode == FP32:
        return np.ascontiguousarray(array, np.float32)
    if not ((array >= 0) & (array <= 1)).all():
        raise ValueError("expected numbers from 0 to 1, as they are sent as bytes; got others")
    return np.rint(array * 255).astype(np.uint8)
