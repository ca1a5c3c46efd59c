"""Read and write ONNX files: each as one file, and with no opset import that no node uses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx

_DEFAULT = ("", "ai.onnx")


def strip_opsets(model: onnx.ModelProto) -> list[str]:
    """Remove imports of domains that no node uses, and return their names.

    ONNX Runtime's optimiser leaves those of its own behind, newer than older releases open at all
    ("ValidateOpsetForDomain").
    """
    used = set(_domains(model.graph))
    for function in model.functions:
        used |= {function.domain, *(o.domain for o in function.opset_import)}
    kept = [o for o in model.opset_import if o.domain in _DEFAULT or o.domain in used]
    gone = [o.domain for o in model.opset_import if o not in kept]
    del model.opset_import[:]
    model.opset_import.extend(kept)
    return gone


def _domains(graph: onnx.GraphProto) -> Iterator[str]:
    for node in graph.node:
        yield node.domain
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _domains(inner)


def save(model: Any, path: Path) -> None:
    """Write a model as one file without unused imports."""
    strip_opsets(model)
    onnx.save(model, str(path))
