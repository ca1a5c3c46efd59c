"""JSON as both ends accept it: one meaning per document, bounded in size and depth.

Repeated keys, NaN and infinities, lone surrogates, a byte order mark and deep nesting are refused,
because two readers could understand them differently or be brought down by them.
"""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

from pilotwave_protocol.errors import BadJson

MAX_DEPTH = 32
MAX_DIGITS = 32


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise BadJson(f"expected each key once; {ascii(_repeated(pairs))[:60]} came twice")
    return found


def _repeated(pairs: list[tuple[str, Any]]) -> str:
    """Return the first key that comes again. One pass: a stranger says how many there are."""
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            return key
        seen.add(key)
    raise ValueError("expected a repeated key")


def _no_constant(word: str) -> NoReturn:
    raise BadJson(f"expected a JSON number; got {word}")


def _int(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise BadJson(f"expected a number of at most {MAX_DIGITS} digits; got {len(digits)}")
    return int(digits)


def _float(digits: str) -> float:
    number = float(digits)
    if number in (float("inf"), float("-inf")):
        raise BadJson(f"expected a finite number; got {digits[:40]}")
    return number


_STRING = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?', re.DOTALL)
_NO_BRACKET = re.compile(r"[^][{}]+")


def _too_deep(text: str, limit: int) -> bool:
    """Say whether brackets nest deeper than `limit`, without parsing: strings are skipped."""
    depth = 0
    for char in _NO_BRACKET.sub("", _STRING.sub("", text)):
        if char in "[{":
            depth += 1
            if depth > limit:
                return True
        else:
            depth -= 1
    return False


def loads(raw: bytes, *, max_bytes: int, max_depth: int = MAX_DEPTH) -> Any:
    """Parse strict JSON, or raise `BadJson` saying what was expected and what came."""
    if len(raw) > max_bytes:
        raise BadJson(f"expected at most {max_bytes} bytes; got {len(raw)}")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as e:
        raise BadJson(f"expected UTF-8; byte {e.start} is not") from e
    # only a text with more brackets than the limit can be too deep, which keeps this off hot paths
    if text.count("[") + text.count("{") > max_depth and _too_deep(text, max_depth):
        raise BadJson(f"expected at most {max_depth} levels of nesting; got more")
    try:
        found = json.loads(
            text,
            object_pairs_hook=_unique,
            parse_constant=_no_constant,
            parse_int=_int,
            parse_float=_float,
        )
    except (ValueError, RecursionError) as e:
        raise BadJson(f"expected JSON; {e}") from e
    if "\\u" in text or "\\U" in text:
        _refuse_surrogates(found)
    return found


def _refuse_surrogates(value: Any) -> None:
    """Escapes can smuggle in lone surrogates, which no UTF-8 writer can write again."""
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as e:
        raise BadJson("expected Unicode text; got a lone surrogate") from e


def dumps(value: Any) -> bytes:
    """Write compact JSON with sorted keys: equal values give equal bytes."""
    return json.dumps(
        value, ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":")
    ).encode("utf-8")
