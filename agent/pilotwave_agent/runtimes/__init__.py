"""The runtimes that a device may have, each behind the same interface (`base.Loaded`).

A runtime is known by its name in manifests; which package brings it is known here, so that its
version can be reported without importing it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Runtime:
    """A runtime's adapter module and the distributions that may bring it."""

    module: str
    distributions: tuple[str, ...]


RUNTIMES = {
    "onnxruntime": Runtime(
        "pilotwave_agent.runtimes.onnxruntime",
        ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-silicon"),
    ),
}
