"""Have libraries do without instructions of the processor that the settings hide.

Only oneDNN (OpenVINO, PyTorch) can be told; ONNX Runtime and XNNPACK take what the processor has.
"""

from __future__ import annotations

from collections.abc import Collection

ONEDNN = "ONEDNN_MAX_CPU_ISA"
# oneDNN's words, the most first, and the facts of what each takes
_STEPS = (
    ("AVX512_CORE_AMX", {"amx_int8", "avx_vnni", "bf16", "avx512_vnni", "avx512", "avx2"}),
    ("AVX512_CORE_FP16", {"avx_vnni", "bf16", "avx512_vnni", "avx512", "avx2"}),
    ("AVX512_CORE_BF16", {"bf16", "avx512_vnni", "avx512", "avx2"}),
    ("AVX512_CORE_VNNI", {"avx512_vnni", "avx512", "avx2"}),
    ("AVX512_CORE", {"avx512", "avx2"}),
    ("AVX2_VNNI", {"avx_vnni", "avx2"}),
    ("AVX2", {"avx2"}),
)
_LEAST = "SSE41"


def without(hidden: Collection[str]) -> dict[str, str]:
    """Return the environment of a process that is to do without these facts (`cpu.avx2`)."""
    names = {fact.removeprefix("cpu.") for fact in hidden if fact.startswith("cpu.")}
    if not any(names & takes for _, takes in _STEPS):
        return {}
    return {ONEDNN: next((word for word, takes in _STEPS if not names & takes), _LEAST)}
