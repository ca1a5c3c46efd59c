"""Take the last layer out of an ONNX file, the one that reads the embedding that is named, or put
another into it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from pilotwave_cli.optimize.tools.onnx_files import save
from pilotwave_cli.optimize.tools.task import Task

Numbers = NDArray[np.float32]


def make(task: Task) -> None:
    """Write the model with the head of the task's options, `[features + 1, classes]` as float32;
    without one, write the head that the model has."""
    model = onnx.load(str(task.model))
    embedding = task.options["embedding"]
    if "head" not in task.options:
        task.out.write_bytes(head_of(model.graph, embedding).astype("<f4").tobytes())
        return
    classes = int(task.options["classes"])
    head = np.frombuffer(Path(task.options["head"]).read_bytes(), "<f4").reshape(-1, classes)
    replace_head(model.graph, embedding, head)
    save(model, task.out)


def head_of(graph: onnx.GraphProto, embedding: str) -> Numbers:
    """Return the weights of the layer that reads the embedding, and its bias as the last row."""
    layer = _layer_of(graph, embedding)
    weight, bias = (numpy_helper.to_array(_found(graph, n)) for n in (layer.weight, layer.bias))
    rows = weight.T if layer.turned else weight
    return np.vstack([rows, bias.reshape(1, -1)]).astype(np.float32)


def replace_head(graph: onnx.GraphProto, embedding: str, head: Numbers) -> None:
    """Change the weights of the layer that reads the embedding, and its bias."""
    layer = _layer_of(graph, embedding)
    _put(graph, layer.weight, head[:-1].T if layer.turned else head[:-1])
    _put(graph, layer.bias, head[-1])


@dataclass(frozen=True)
class _Layer:
    """The names of a layer's weights, and whether they lie as [classes, features]."""

    weight: str
    bias: str
    turned: bool


def _layer_of(graph: onnx.GraphProto, embedding: str) -> _Layer:
    """The one Gemm, or MatMul and Add, that reads the embedding."""
    readers = [n for n in graph.node if embedding in n.input]
    if len(readers) != 1 or readers[0].op_type not in ("Gemm", "MatMul"):
        raise ValueError(
            f"expected one Gemm or MatMul to read {embedding}; it is read by"
            f" {', '.join(n.op_type for n in readers) or 'nothing'}"
        )
    layer = readers[0]
    if layer.op_type == "MatMul":
        adds = [n for n in graph.node if n.op_type == "Add" and layer.output[0] in n.input]
        if len(adds) != 1:
            raise ValueError("expected an Add with the bias after the MatMul")
        (bias,) = [name for name in adds[0].input if name != layer.output[0]]
        return _Layer(layer.input[1], bias, False)
    flags = {a.name: onnx.helper.get_attribute_value(a) for a in layer.attribute}
    if any(flags.get(k, v) != v for k, v in (("alpha", 1.0), ("beta", 1.0), ("transA", 0))):
        raise ValueError(f"{layer.name or 'the Gemm'} scales or turns what it reads")
    if len(layer.input) != 3:
        raise ValueError("expected a Gemm with a bias")
    return _Layer(layer.input[1], layer.input[2], bool(flags.get("transB", 0)))


def _found(graph: onnx.GraphProto, name: str) -> onnx.TensorProto:
    found: onnx.TensorProto | None = next((t for t in graph.initializer if t.name == name), None)
    if found is None:
        raise ValueError(f"expected {name} among the file's weights")
    return found


def _put(graph: onnx.GraphProto, name: str, values: Numbers) -> None:
    found = _found(graph, name)
    before = numpy_helper.to_array(found)
    if before.size != values.size:
        raise ValueError(f"{name} has {list(before.shape)} weights; the head {list(values.shape)}")
    shaped = values.reshape(before.shape).astype(before.dtype)
    found.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(shaped), name))
