"""The answers of a version with an overlay: softmax(log p + [e, 1] D), or scores + [e, 1] D.

It takes the version's own outputs alone: the embedding e, and its probabilities p or its scores.
The self-test and the application use this very code, so what was judged is what is answered.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pilotwave_protocol.learning.device_plan import Kind
from pilotwave_protocol.learning.overlay import Overlay, read_overlay
from pilotwave_protocol.learning.statistics import read_numbers

LEAST_PROBABILITY = 1e-12


@dataclass(frozen=True, eq=False)
class Overlaid:
    """An overlay that is ready for use; `head` is [features + 1, classes], float32."""

    about: Overlay
    head: NDArray[np.float32]

    @classmethod
    def from_file(cls, raw: bytes, name: str) -> Overlaid:
        """Read a file, or raise `BadMessage`."""
        about, numbers = read_overlay(raw, name)
        shape = about.features + 1, about.classes
        head = read_numbers(numbers, shape[0] * shape[1]).reshape(shape)
        return cls(about, head.astype(np.float32))

    def answer(self, outputs: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the outputs with other scores; None where these are not the outputs that it was
        made for, or no finite ones: then the version's own answer stands."""
        about = self.about
        embeddings = np.asarray(outputs.get(about.embedding))
        scores = np.asarray(outputs.get(about.scores.output))
        rows = scores.shape[0] if scores.ndim == 2 else -1
        fits = (rows, about.features) == embeddings.shape and scores.shape[1] == about.classes
        if not fits or scores.dtype.kind != "f" or embeddings.dtype.kind not in "iuf":
            return None
        found = overlaid(
            self.head, scores, embeddings, clip=float(about.clip), kind=about.scores.kind
        )
        if not np.isfinite(found).all():
            return None
        return {**outputs, about.scores.output: found.astype(scores.dtype)}


def overlaid(
    head: NDArray[Any],
    scores: NDArray[Any],
    embeddings: NDArray[Any],
    *,
    clip: float,
    kind: Kind,
) -> NDArray[np.float32]:
    """Return the scores [rows, classes] with a head's part added."""
    e = embeddings.astype(np.float32, copy=False)
    sizes = np.sqrt(np.einsum("ij,ij->i", e, e))
    # what is added is linear in e: to shorten an embedding is to weigh its part less
    weights = np.minimum(np.float32(1), np.float32(clip) / np.maximum(sizes, np.float32(1e-30)))
    shift = (e @ head[:-1]) * weights[:, None] + head[-1]
    moved = offsets(scores, kind) + shift
    if kind is Kind.LOGITS:
        return np.asarray(moved)
    exp = np.exp(moved - moved.max(axis=1, keepdims=True))
    return np.asarray(exp / exp.sum(axis=1, keepdims=True))


def offsets(scores: NDArray[Any], kind: Kind) -> NDArray[np.float32]:
    """Return what stands before the softmax, up to a number for each row."""
    numbers = scores.astype(np.float32, copy=False)
    if kind is Kind.LOGITS:
        return np.asarray(numbers)
    return np.asarray(np.log(np.maximum(numbers, np.float32(LEAST_PROBABILITY))))
