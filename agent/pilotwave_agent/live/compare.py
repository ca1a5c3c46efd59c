"""Compare two versions' answers to one input: do they agree, how far apart are they, how sure.

A comparer is named by the manifest of the version that is tried (`compare`), with the output that
it looks at and how much may differ. Without a word there, a table of scores is compared by its
largest entry and anything else by its relative distance.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

ARGMAX, RELATIVE_L2, COSINE, IOU = "argmax", "relative_l2", "cosine", "iou"
_LEAST_CONFIDENCE = 0.25  # a box of less is no find
_FLOATS = "fc"


@dataclass(frozen=True)
class Compared:
    """What comes of a pair. `distance` is None where the answers cannot be laid beside each other,
    the scores are where the comparer knows no confidence."""

    agrees: bool
    distance: float | None = None
    score: float | None = None
    candidate_score: float | None = None


class Incomparable(ValueError):
    """The answers differ in what they are, not in what they say."""


def compare(
    serving: Mapping[str, Any],
    candidate: Mapping[str, Any],
    *,
    by: str | None = None,
    output: str | None = None,
    tolerance: float | None = None,
) -> Compared:
    """Compare the outputs of a call. Raises `ValueError` for a comparer or an output that the
    serving version does not have; whatever the candidate answers raises nothing."""
    name = output or _default_output(serving)
    if name not in serving:
        raise ValueError(f"output {name}: expected one of {', '.join(sorted(serving))}")
    ours = np.asarray(serving[name])
    by = by or _default_comparer(ours)
    if by not in COMPARERS:
        raise ValueError(f"{by}: expected one of {', '.join(COMPARERS)}")
    if name not in candidate:
        return Compared(agrees=False)
    theirs = np.asarray(candidate[name])
    with np.errstate(all="ignore"):
        try:
            return _finite(COMPARERS[by](ours, theirs, tolerance))
        except (ValueError, TypeError):
            return Compared(agrees=False)


def nonfinite(serving: Mapping[str, Any], candidate: Mapping[str, Any]) -> bool:
    """Say whether the candidate answers NaN or infinity in an output that is finite as it is."""
    return any(
        not _is_finite(found) and (name not in serving or _is_finite(serving[name]))
        for name, found in candidate.items()
    )


def _is_finite(values: Any) -> bool:
    array = np.asarray(values)
    return array.dtype.kind not in _FLOATS or bool(np.isfinite(array).all())


def _default_output(serving: Mapping[str, Any]) -> str:
    """Name the first output that is a table of scores, else the first."""
    tables = (name for name, found in serving.items() if _is_table(np.asarray(found)))
    return next(tables, next(iter(serving), ""))


def _default_comparer(array: Array) -> str:
    return ARGMAX if _is_table(array) else RELATIVE_L2


def _is_table(array: Array) -> bool:
    return array.dtype.kind == "f" and array.ndim > 0 and array.shape[-1] > 1


def _finite(found: Compared) -> Compared:
    def kept(value: float | None) -> float | None:
        return float(value) if value is not None and np.isfinite(value) else None

    return Compared(
        bool(found.agrees), kept(found.distance), kept(found.score), kept(found.candidate_score)
    )


# --- the comparers: each of two arrays and a tolerance (None: its own)


def by_argmax(ours: Array, theirs: Array, tolerance: float | None) -> Compared:
    """Rows agree whose largest entry is the same; `tolerance` is the share of rows that may not
    (0). The score is the mean of the rows' largest probability."""
    _check_shapes(ours, theirs)
    rows, others = (a.reshape(-1, a.shape[-1]).astype(np.float64) for a in (ours, theirs))
    apart = float((rows.argmax(1) != others.argmax(1)).mean()) if len(rows) else 0.0
    return Compared(
        apart <= (tolerance or 0.0) and bool(np.isfinite(others).all()),
        _relative(rows, others),
        _confidence(rows),
        _confidence(others),
    )


def by_relative_l2(ours: Array, theirs: Array, tolerance: float | None) -> Compared:
    """They agree whose difference is at most `tolerance` (0.01) of the serving version's size."""
    _check_shapes(ours, theirs)
    if ours.dtype.kind not in "biufc":  # texts agree as they are
        return Compared(bool((ours == theirs).all()))
    distance = _relative(ours.astype(np.float64), theirs.astype(np.float64))
    return Compared(distance <= (0.01 if tolerance is None else tolerance), distance)


def by_cosine(ours: Array, theirs: Array, tolerance: float | None) -> Compared:
    """They agree whose angle's cosine is at least 1 - `tolerance` (0.01)."""
    _check_shapes(ours, theirs)
    a, b = (x.astype(np.float64).ravel() for x in (ours, theirs))
    sizes = float(np.linalg.norm(a) * np.linalg.norm(b))
    distance = 1.0 - float(a @ b) / sizes if sizes else float(np.any(a) or np.any(b))
    return Compared(distance <= (0.01 if tolerance is None else tolerance), distance)


def by_iou(ours: Array, theirs: Array, tolerance: float | None) -> Compared:
    """Masks or boxes overlap: they agree where 1 - intersection over union is at most `tolerance`
    (0.5). Boxes are rows of x1, y1, x2, y2 and, if there is a fifth number, a confidence."""
    most = 0.5 if tolerance is None else tolerance
    if ours.dtype.kind != "f":
        _check_shapes(ours, theirs)
        a, b = ours != 0, theirs != 0
        union = int((a | b).sum())
        distance = 1.0 - int((a & b).sum()) / union if union else 0.0
        return Compared(distance <= most, distance)
    (boxes, sure), (others, other_sure) = _boxes(ours), _boxes(theirs)
    distance = 1.0 - _matched(boxes, others)
    finite = bool(np.isfinite(theirs).all())
    return Compared(distance <= most and finite, distance, sure, other_sure)


COMPARERS: dict[str, Callable[[Array, Array, float | None], Compared]] = {
    ARGMAX: by_argmax,
    RELATIVE_L2: by_relative_l2,
    COSINE: by_cosine,
    IOU: by_iou,
}


def _check_shapes(ours: Array, theirs: Array) -> None:
    if ours.shape != theirs.shape:
        raise Incomparable(f"expected the shape {ours.shape}, got {theirs.shape}")


def _relative(ours: Array, theirs: Array) -> float:
    size = float(np.linalg.norm(ours))
    apart = float(np.linalg.norm(ours - theirs))
    return apart / size if size else apart


def _confidence(rows: Array) -> float | None:
    """Return the mean of the rows' largest probability; what are no probabilities is made so."""
    if not rows.size:
        return None
    is_share = rows.min() >= 0 and np.allclose(rows.sum(1), 1.0, atol=1e-2)
    if is_share:
        return float(rows.max(1).mean())
    return float((1.0 / np.exp(rows - rows.max(1, keepdims=True)).sum(1)).mean())


def _boxes(found: Array) -> tuple[Array, float | None]:
    """Return the boxes that are finds, and how sure the surest is."""
    rows = found.reshape(-1, found.shape[-1])
    if rows.shape[1] < 4:
        raise Incomparable(f"expected rows of 4 numbers or more, got {rows.shape[1]}")
    if rows.shape[1] == 4:
        return rows.astype(np.float64), None
    sure = rows[:, 4]
    return rows[sure >= _LEAST_CONFIDENCE, :4].astype(np.float64), float(
        sure.max() if len(sure) else 0.0
    )


def _matched(boxes: Array, others: Array) -> float:
    """Return the mean overlap of boxes that are matched one to one, the best first; a box without
    a partner overlaps by 0."""
    most = max(len(boxes), len(others))
    if not most:
        return 1.0
    overlaps = _overlaps(boxes, others)
    total = 0.0
    for _ in range(min(len(boxes), len(others))):
        best = int(np.nanargmax(overlaps))
        row, column = divmod(best, len(others))
        total += float(overlaps[row, column])
        overlaps[row, :] = overlaps[:, column] = -1.0
    return total / most


def _overlaps(boxes: Array, others: Array) -> Array:
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    inside = np.clip(high - low, 0.0, None).prod(2)
    sizes = [np.clip(b[:, 2:] - b[:, :2], 0.0, None).prod(1) for b in (boxes, others)]
    union = sizes[0][:, None] + sizes[1][None, :] - inside
    found: Array = np.where(union > 0, inside / np.where(union > 0, union, 1.0), 0.0)
    return found
