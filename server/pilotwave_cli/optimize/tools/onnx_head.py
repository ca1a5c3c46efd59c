"""Put another last layer into an ONNX file: the one that reads the embedding that is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from pilotwave_cli.optimize.tools.onnx_files import save
from pilotwave_cli.optimize.tools.task import Task

Numbers = NDArray[np.float32]


def make(task: Task) -> None:
    """Write the model with the head of the task's options, `[features + 1, classes]` as float32."""
    model = onnx.load(str(task.model))
    classes = int(task.options["classes"])
    head = np.frombuffer(Path(task.options["head"]).read_bytes(), "<f4").reshape(-1, classes)
    replace_head(model.graph, task.options["embedding"], head)
    save(model, task.out)


def replace_head(graph: onnx.GraphProto, embedding: str, head: Numbers) -> None:
    """Change the weights of the one Gemm, or MatMul and Add, that reads the embedding."""
    readers = [n for n in graph.node if embedding in n.input]
    if len(readers) != 1 or readers[0].op_type not in ("Gemm", "MatMul"):
        raise ValueError(
            f"expected one Gemm or MatMul to read {embedding}; it is read by"
            f" {', '.join(n.op_type for n in readers) or 'nothing'}"
        )
    layer = readers[0]
    if layer.op_type == "Gemm":
        flags = {a.name: onnx.helper.get_attribute_value(a) for a in layer.attribute}
        if any(flags.get(k, v) != v for k, v in (("alpha", 1.0), ("beta", 1.0), ("transA", 0))):
            raise ValueError(f"{layer.name or 'the Gemm'} scales or turns what it reads")
        if len(layer.input) != 3:
            raise ValueError("expected a Gemm with a bias")
        weight, bias, turned = layer.input[1], layer.input[2], bool(flags.get("transB", 0))
    else:
        adds = [n for n in graph.node if n.op_type == "Add" and layer.output[0] in n.input]
        if len(adds) != 1:
            raise ValueError("expected an Add with the bias after the MatMul")
        (bias,) = [name for name in adds[0].input if name != layer.output[0]]
        weight, turned = layer.input[1], False
    _put(graph, weight, head[:-1].T if turned else head[:-1])
    _put(graph, bias, head[-1])


def _put(graph: onnx.GraphProto, name: str, values: Numbers) -> None:
    found = next((t for t in graph.initializer if t.name == name), None)
    if found is None:
        raise ValueError(f"expected {name} among the file's weights")
    before = numpy_helper.to_array(found)
    if before.size != values.size:
        raise ValueError(f"{name} has {list(before.shape)} weights; the head {list(values.shape)}")
    shaped = values.reshape(before.shape).astype(before.dtype)
    found.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(shaped), name))
