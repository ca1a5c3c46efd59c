"""A data folder as the agent keeps it, filled by a test: versions, and the links that name one.

Each version's model answers with its own number, so that an answer tells who made it. Faulty ones
fail on load, answer NaN or never end.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from pilotwave_agent.host import layout
from pilotwave_agent.host.disk import Disk
from pilotwave_agent.host.layout import Layout
from pilotwave_agent.live.links import About
from pilotwave_protocol.digest import sha256_hex
from pilotwave_protocol.messages.check_in import Installed
from pilotwave_protocol.shadow import SHADOW, SHADOW_FILE, SHADOW_SCHEMA, Shadow

X = {"x": np.ones((1, 4), np.float32)}
KINDS = ("good", "broken", "nan", "hang", "odd")


def model_bytes(number: float, *, width: int = 4, hidden: int = 1) -> bytes:
    """Make an ONNX model whose output is `number` everywhere, whatever comes in. It multiplies its
    way through `hidden` neurons first."""
    there = helper.make_tensor("there", TensorProto.FLOAT, [width, hidden], [1.0] * width * hidden)
    back = helper.make_tensor("back", TensorProto.FLOAT, [hidden, width], [0.0] * width * hidden)
    mine = helper.make_tensor("mine", TensorProto.FLOAT, [1], [number])
    nodes = [
        helper.make_node("MatMul", ["x", "there"], ["h"]),
        helper.make_node("MatMul", ["h", "back"], ["nothing"]),
        helper.make_node("Add", ["nothing", "mine"], ["y"]),
    ]
    return _serialized(nodes, [there, back, mine], width)


def _loop_body(width: int = 4) -> onnx.GraphProto:
    return helper.make_graph(
        [
            helper.make_node("Identity", ["going"], ["goes"]),
            helper.make_node("Add", ["a", "one"], ["b"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("a", TensorProto.FLOAT, [1, width]),
        ],
        [
            helper.make_tensor_value_info("goes", TensorProto.BOOL, []),
            helper.make_tensor_value_info("b", TensorProto.FLOAT, [1, width]),
        ],
        [helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0])],
    )


HANGS, NAN, HOGS, RAISES = 0, 1, 2, 3


def odd_bytes(number: float, *, width: int = 4) -> bytes:
    """Make an ONNX model that answers `number` to ones. Its first four inputs have it loop so many
    times, answer NaN where it is negative, take so many numbers' memory, and raise from 2 on."""
    i64, f32 = TensorProto.INT64, TensorProto.FLOAT
    constants = [
        *(helper.make_tensor(f"at{n}", i64, [], [n]) for n in range(4)),
        helper.make_tensor("yes", TensorProto.BOOL, [], [True]),
        helper.make_tensor("axes", i64, [1], [0]),
        helper.make_tensor("two", f32, [2], [1.0, 1.0]),
        helper.make_tensor("nought", f32, [1], [0.0]),
        helper.make_tensor("mine", f32, [1], [number]),
    ]
    node = helper.make_node
    nodes = [
        *(node("Gather", ["x", f"at{n}"], [f"x{n}"], axis=1) for n in range(4)),
        *(node("Cast", [f"x{n}"], [f"i{n}"], to=i64) for n in (HANGS, HOGS, RAISES)),
        node("ReduceSum", ["i0", "axes"], ["rounds"], keepdims=0),
        node("Loop", ["rounds", "yes", "x"], ["looped"], body=_loop_body(width)),
        node("Sqrt", ["x1"], ["root"]),
        node("ConstantOfShape", ["i2"], ["much"]),
        node("ReduceMax", ["much"], ["most"], keepdims=0),
        node("Gather", ["two", "i3"], ["picked"]),
        node("Add", ["looped", "root"], ["s1"]),
        node("Add", ["s1", "most"], ["s2"]),
        node("Add", ["s2", "picked"], ["s3"]),
        node("Mul", ["s3", "nought"], ["s4"]),
        node("Add", ["s4", "mine"], ["y"]),
    ]
    return _serialized(nodes, constants, width)


def hanging_bytes() -> bytes:
    """Make an ONNX model that loads, and whose run takes ages."""
    rounds = helper.make_tensor("rounds", TensorProto.INT64, [], [1 << 40])
    yes = helper.make_tensor("yes", TensorProto.BOOL, [], [True])
    node = helper.make_node("Loop", ["rounds", "yes", "x"], ["y"], body=_loop_body())
    return _serialized([node], [rounds, yes], 4)


def _serialized(
    nodes: list[onnx.NodeProto], constants: list[onnx.TensorProto], width: int
) -> bytes:
    shape = [1, width]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        constants,
    )
    opset = [helper.make_opsetid("", 17)]
    return bytes(helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString())


def write_taking_bytes(source: Path, path: Path) -> Path:
    """Write a model of one input `x` of floats behind a cast and a division by 255."""
    model = onnx.load(source)
    graph = model.graph
    for node in graph.node:
        for at, name in enumerate(node.input):
            node.input[at] = "scaled" if name == "x" else name
    full = helper.make_tensor("full", TensorProto.FLOAT, [], [255.0])
    graph.initializer.append(full)
    graph.node.insert(0, helper.make_node("Div", ["floats", "full"], ["scaled"]))
    graph.node.insert(0, helper.make_node("Cast", ["x"], ["floats"], to=TensorProto.FLOAT))
    graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


class Shelf:
    """One model in a data folder."""

    def __init__(
        self, data: Path, model: str = "detector", *, hidden: int = 1, width: int = 4
    ) -> None:
        self.data, self.model, self.hidden, self.width = data, model, hidden, width
        self.layout, self.disk = Layout(data), Disk()
        self.previous: Installed | None = None
        self.current: Installed | None = None

    def add(self, number: int, kind: str = "good") -> Installed:
        """Put version 1.<number>.0 onto the shelf; no link names it yet."""
        content = {
            "good": lambda: model_bytes(number, width=self.width, hidden=self.hidden),
            "broken": lambda: model_bytes(number)[:40],
            "nan": lambda: model_bytes(float("nan")),
            "hang": hanging_bytes,
            "odd": lambda: odd_bytes(number, width=self.width),
        }[kind]()
        return self.add_files(number, {"model.onnx": content})

    def add_files(self, number: int, files: Mapping[str, bytes]) -> Installed:
        """Put version 1.<number>.0 of these files, a `model.onnx` among them, onto the shelf."""
        digest = sha256_hex(b"".join(files.values()))
        version = Installed(f"1.{number}.0", digest, "onnx", number)
        folder = self.layout.version(self.model, version)
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (folder / name).write_bytes(content)
        about = About(
            self.model, version.version, "onnx", version.sha256, "onnxruntime", "model.onnx"
        )
        path = self.layout.about(self.model, version)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(about.to_bytes())
        return version

    def switch(self, version: Installed) -> None:
        """Make a version current, as the agent does."""
        self.previous, self.current = self.current, version
        layout.point(self.disk, self.layout, self.model, "previous", self.previous)
        layout.point(self.disk, self.layout, self.model, "current", version)

    def back(self) -> None:
        """Go back to the version before, as the agent does."""
        assert self.previous is not None
        self.current, self.previous = self.previous, None
        layout.point(self.disk, self.layout, self.model, "previous", None)
        layout.point(self.disk, self.layout, self.model, "current", self.current)

    def serve(self, number: int, kind: str = "good") -> Installed:
        """Add a version and make it current."""
        version = self.add(number, kind)
        self.switch(version)
        return version

    def shadow(self, version: Installed | None, *, share: float = 1.0, cpu: float = 1.0) -> None:
        """Have applications try a version beside the one that serves, as the agent does; None ends
        it."""
        path = self.data / "live" / self.model / SHADOW_FILE
        if version is None:
            layout.point(self.disk, self.layout, self.model, SHADOW, None)
            self.disk.unlink(path)
            return
        words = {
            "schema": SHADOW_SCHEMA,
            "name": self.layout.version(self.model, version).name,
            "version": version.version,
            **Shadow(share, cpu, 1).to_plain(),
            "rollout": "r1",
        }
        self.disk.make_dirs(path.parent)
        self.disk.write_atomic(path, json.dumps(words).encode(), 0o644)
        layout.point(self.disk, self.layout, self.model, SHADOW, version)

    def remove(self, version: Installed) -> None:
        """Remove a version's files, as the agent does when nobody needs them."""
        self.disk.remove_tree(self.layout.version(self.model, version))
        self.disk.unlink(self.layout.about(self.model, version))


def number_in(outputs: dict[str, NDArray[np.float32]]) -> int:
    """Return the number of the version that made this answer; it must be the same throughout."""
    values = set(outputs["y"].ravel().tolist())
    assert len(values) == 1, values
    return int(values.pop())
