"""Which runtime opens which formats: what a publisher may pair, a server accepts, a device tries.

Formats are those that `sniff` tells by content. A runtime that is not listed may open anything.
"""

from __future__ import annotations

from types import MappingProxyType

OPENS = MappingProxyType(
    {
        "onnxruntime": ("onnx", "ort"),
        "litert": ("tflite",),
        "tflite-runtime": ("tflite",),
        "openvino": ("openvino-ir", "onnx", "tflite", "openvino-npu-blob"),
        "torch": ("torchscript", "torchscript-lite"),
        "executorch": ("executorch",),
        "edge-impulse": ("eim",),
        "llama.cpp": ("gguf",),
        # of an ONNX file, the device builds its own engine
        "tensorrt": ("tensorrt-plan", "onnx"),
        # the agent itself: its wheels, and their digests
        "wheelhouse": ("wheelhouse",),
    }
)

COMMAND = "command"
"""The runtime of a program that opens its files itself."""

AGENT_RUNTIMES = ("wheelhouse", COMMAND)
"""What a version of the agent itself may be: wheels, or any program."""
