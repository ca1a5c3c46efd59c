"""Digits as they look in the field: shifted by a pixel, darker, noisy. No image is in two parts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

DIGITS = Path(__file__).resolve().parent.parent / "digits"
CLASSES = 10
PARTS = {"nodes": slice(0, 360), "desk": slice(360, 560), "unseen": slice(560, None)}

Images = tuple[np.ndarray, np.ndarray]


def at_the_factory(part: str) -> Images:
    """Return images [n, 64] in 0 to 1, and what they show [n]. 1.1.0 was trained on none."""
    held, rows = load_file(DIGITS / "held_out.safetensors"), PARTS[part]
    return held["clean"][rows].astype(np.float32) / 16, held["label"][rows].astype(np.int64)


def seen(part: str) -> Images:
    """Return the same images as the field's cameras see them."""
    x, labels = at_the_factory(part)
    random = np.random.default_rng(len(x))
    shifted = np.roll(x.reshape(-1, 8, 8), 1, axis=2).reshape(len(x), -1)
    dark = shifted * random.uniform(0.5, 1, (len(x), 1))
    return np.clip(dark + random.normal(0, 0.1, x.shape), 0, 1).astype(np.float32), labels


def shared_out(images: Images, nodes: int) -> list[Images]:
    """Give each image to one node, classes in unlike shares (Dirichlet 1, Hsu et al., 2019)."""
    x, labels = images
    random = np.random.default_rng(1)
    owner = np.empty(len(x), int)
    for digit in range(CLASSES):
        rows = random.permutation(np.flatnonzero(labels == digit))
        owner[rows] = random.choice(nodes, len(rows), p=random.dirichlet([1.0] * nodes))
    return [(x[owner == node], labels[owner == node]) for node in range(nodes)]
