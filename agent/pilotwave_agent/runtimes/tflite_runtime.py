"""`tflite-runtime`, which ended with 2.14 and is still the only one for 32-bit ARM.

It dies of damaged files that others refuse, and answers some newer quantised models wrongly without
an error: what keeps a device from both is the signature and the golden cases.
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

from tflite_runtime import interpreter

from pilotwave_agent.runtimes.base import Options
from pilotwave_agent.runtimes.tflite import Interpreted, load_with


def load(file: Path, options: Options) -> Interpreted:
    """Open a model."""
    return load_with(interpreter, "tflite-runtime", version("tflite-runtime"), file, options)
