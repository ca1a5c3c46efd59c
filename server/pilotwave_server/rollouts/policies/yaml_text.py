"""Read a policy's text, YAML or JSON, into plain values, with the line of each path.

Only what JSON has too: mappings, lists, text, numbers, true, false, null. No tags, anchors or
aliases, so that a short text stays short; a word is a word, not a date or a time of day.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import yaml

from pilotwave_server.rollouts.policies.faults import Fault, PolicyInvalid, show

MAX_TEXT = 64 * 1024
MAX_DEPTH = 12
_INTEGER = re.compile(r"[-+]?[0-9]{1,18}")
_NUMBER = re.compile(r"[-+]?[0-9]{1,18}(?:\.[0-9]{1,18})?(?:[eE][-+]?[0-9]{1,3})?")
_CORE = "tag:yaml.org,2002:"
_SCALARS = frozenset({"str", "int", "float", "bool", "null", "timestamp", "value", "merge"})
_WORDS = {"true": True, "false": False, "null": None, "~": None, "": None}


class _Loader(yaml.SafeLoader):
    """SafeLoader that knows no alias."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()  # type: ignore[no-untyped-call]  # untyped there
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise yaml.MarkedYAMLError(
                problem="expected no anchor (&) or alias (*)", problem_mark=event.start_mark
            )
        return super().compose_node(parent, index)


def read_text(text: str) -> tuple[Any, dict[str, int]]:
    """Return the plain values and the line (from 1) of each path. PolicyInvalid."""
    if len(text) > MAX_TEXT:
        raise _fault("", {}, f"expected at most {MAX_TEXT} characters; got {len(text)}")
    try:
        node = _Loader(text).get_single_node()
    except yaml.YAMLError as error:
        raise PolicyInvalid([_not_yaml(error)]) from None
    except RecursionError:
        raise _fault("", {}, f"expected at most {MAX_DEPTH} levels") from None
    lines: dict[str, int] = {}
    return None if node is None else _value(node, "", lines, depth=0), lines


def _fault(path: str, lines: Mapping[str, int], message: str) -> PolicyInvalid:
    return PolicyInvalid([Fault(path, lines.get(path), message)])


def _not_yaml(error: yaml.YAMLError) -> Fault:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error).partition("\n")[0]
    line = None if mark is None else mark.line + 1
    return Fault("", line, f"expected YAML or JSON; {str(problem)[:200]}")


def _value(node: yaml.Node, path: str, lines: dict[str, int], depth: int) -> Any:
    lines[path] = node.start_mark.line + 1
    if depth > MAX_DEPTH:
        raise _fault(path, lines, f"expected at most {MAX_DEPTH} levels")
    if isinstance(node, yaml.SequenceNode):
        _plain_tag(node, f"{_CORE}seq", path, lines)
        items = enumerate(node.value)
        return [_value(item, f"{path}[{n}]", lines, depth + 1) for n, item in items]
    if isinstance(node, yaml.MappingNode):
        _plain_tag(node, f"{_CORE}map", path, lines)
        return _mapping(node, path, lines, depth)
    return _scalar(node, path, lines)


def _mapping(
    node: yaml.MappingNode, path: str, lines: dict[str, int], depth: int
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key_node, item in node.value:
        key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
        here = f"{path}.{key}" if path else str(key)
        lines[here] = key_node.start_mark.line + 1
        if key is None:
            raise _fault(path, lines, "expected words as keys")
        if key in found:
            raise _fault(here, lines, "expected each key once; it is there twice")
        found[str(key)] = _value(item, here, lines, depth + 1)
        lines[here] = key_node.start_mark.line + 1
    return found


def _scalar(node: yaml.Node, path: str, lines: dict[str, int]) -> Any:
    text = str(node.value)
    style = getattr(node, "style", None)
    if node.tag.removeprefix(_CORE) not in _SCALARS:
        raise _fault(path, lines, f"expected no tag; got {show(node.tag)}")
    if style is not None:
        return text
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _NUMBER.fullmatch(text):
        number = float(text)
        return number if math.isfinite(number) else text
    return text


def _plain_tag(node: yaml.Node, tag: str, path: str, lines: dict[str, int]) -> None:
    if node.tag != tag:
        raise _fault(path, lines, f"expected no tag; got {show(node.tag)}")
