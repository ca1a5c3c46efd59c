"""LiteRT (`ai-edge-litert`): `.tflite` files."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

from ai_edge_litert import interpreter

from pilotwave_agent.runtimes.base import Options
from pilotwave_agent.runtimes.tflite import Interpreted, load_with


def load(file: Path, options: Options) -> Interpreted:
    """Open a model."""
    return load_with(interpreter, "litert", version("ai-edge-litert"), file, options)
