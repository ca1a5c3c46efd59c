"""The simulated fleet of `bench/learn.py`: digits as devices see them, and devices that lie.

The version that is out was trained at the factory, on clean images. In the field each image is
shifted by a pixel, darker and noisy. No image is in two of the parts.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from _bench import DIGITS

FACTORY, VALIDATION, TEST = 150, 200, 600
CLASSES, HIDDEN = 10, 64
Array = np.ndarray


class Examples(NamedTuple):
    """Embeddings [n, HIDDEN] and classes [n], and the images where the whole network learns."""

    x: Array
    y: Array
    images: Array | None = None

    def __len__(self) -> int:
        return len(self.y)


@dataclass(frozen=True)
class Field:
    """What there is to learn from and to judge by. `head` is that of the version that is out."""

    pool: Array
    pool_classes: Array
    validation: Examples
    test: Examples
    clean: Examples
    head: Array
    net: Any

    def seen(self, rows: Array, random: np.random.Generator) -> Examples:
        """Images of the pool as a device sees them."""
        images = in_field(self.pool[rows], random)
        return Examples(embed(self.net, images), self.pool_classes[rows], images)


def load_field() -> Field:
    """Make the parts and train the version that is out. `ModuleNotFoundError` without the extra
    `examples`."""
    sys.path.insert(0, str(DIGITS))
    import train
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    order = np.random.RandomState(0).permutation(len(labels))
    x, y = pixels[order].astype(np.uint8), labels[order].astype(np.int64)
    net = train.fit(
        (x[:FACTORY], y[:FACTORY]), hidden=HIDDEN, epochs=150, seed=11, rate=0.05, noisy=False
    )
    random = np.random.default_rng(1)
    images, at = train.scaled(x), FACTORY + VALIDATION
    judged = slice(at, at + TEST)
    fields = [in_field(images[FACTORY:at], random), in_field(images[judged], random)]
    return Field(
        pool=images[at + TEST :],
        pool_classes=y[at + TEST :],
        validation=Examples(embed(net, fields[0]), y[FACTORY:at]),
        test=Examples(embed(net, fields[1]), y[judged], fields[1]),
        clean=Examples(embed(net, images[judged]), y[judged]),
        head=np.vstack([net.w2, net.b2]),
        net=net,
    )


def in_field(images: Array, random: np.random.Generator) -> Array:
    shifted = np.roll(images.reshape(-1, 8, 8), 1, axis=2).reshape(len(images), -1)
    dark = shifted * random.uniform(0.5, 1, (len(images), 1))
    return np.clip(dark + random.normal(0, 0.1, images.shape), 0, 1)


def embed(net: Any, images: Array) -> Array:
    return np.maximum(images @ net.w1 + net.b1, 0)


def shared_out(field: Field, alpha: float, devices: int, seed: int) -> list[Examples]:
    """Give each image to one device, classes in shares by Dirichlet(alpha) (Hsu et al., 2019)."""
    random = np.random.default_rng(seed)
    rows: list[list[int]] = [[] for _ in range(devices)]
    for digit in range(CLASSES):
        mine = random.permutation(np.flatnonzero(field.pool_classes == digit))
        cuts = np.cumsum(random.dirichlet([alpha] * devices))[:-1] * len(mine)
        for device, part in enumerate(np.split(mine, cuts.astype(int))):
            rows[device].extend(part.tolist())
    return [field.seen(np.array(part, int), random) for part in rows]


def drawn(field: Field, alpha: float, devices: int, seed: int) -> list[Examples]:
    """For more devices than the images would do for: each draws 20 to 60 of its own mixture of
    classes, with replacement, and sees each in its own way."""
    random = np.random.default_rng(seed)
    by_class = [np.flatnonzero(field.pool_classes == digit) for digit in range(CLASSES)]
    found = []
    for _ in range(devices):
        mix = random.dirichlet([alpha] * CLASSES)
        classes = random.choice(CLASSES, random.integers(20, 61), p=mix)
        found.append(field.seen(np.array([random.choice(by_class[c]) for c in classes]), random))
    return found


def learn_network(field: Field, fleet: Sequence[Examples], *, rounds: int) -> list[float]:
    """Federated averaging of the whole network: the accuracy after each round."""
    now, found = [field.net.w1, field.net.b1, field.net.w2, field.net.b2], []
    for number in range(rounds):
        changes = [_trained(now, mine, 1000 * number + n) for n, mine in enumerate(fleet)]
        now = [np.mean(parts, axis=0) for parts in zip(*changes, strict=True)]
        judged = np.maximum(field.test.images @ now[0] + now[1], 0) @ now[2] + now[3]
        found.append(float((judged.argmax(axis=1) == field.test.y).mean()))
    return found


def _trained(weights: Sequence[Array], mine: Examples, seed: int) -> list[Array]:
    """The network after two passes over a device's images."""
    w1, b1, w2, b2 = (w.copy() for w in weights)
    random, wanted = np.random.default_rng(seed), np.eye(CLASSES)[mine.y]
    for _ in range(2):
        order = random.permutation(len(mine))
        for start in range(0, len(mine), 16):
            x = mine.images[order[start : start + 16]]
            hidden = np.maximum(x @ w1 + b1, 0)
            z = hidden @ w2 + b2
            e = np.exp(z - z.max(axis=1, keepdims=True))
            d = (e / e.sum(axis=1, keepdims=True) - wanted[order[start : start + 16]]) / len(x)
            back = (d @ w2.T) * (hidden > 0)
            w2, b2 = w2 - 0.1 * hidden.T @ d, b2 - 0.1 * d.sum(axis=0)
            w1, b1 = w1 - 0.1 * x.T @ back, b1 - 0.1 * back.sum(axis=0)
    return [w1, b1, w2, b2]


def wrong_classes(mine: Examples) -> Examples:
    """A device whose labels are all wrong, in the same way as those of others like it."""
    return Examples(mine.x, CLASSES - 1 - mine.y)


def repeated(mine: Examples, most: int) -> Examples:
    """As many examples as may count, of those that there are."""
    rows = np.resize(np.arange(len(mine)), most)
    return Examples(mine.x[rows], mine.y[rows])


def invented(most: int, clip: float, random: np.random.Generator) -> Examples:
    """Examples of nothing, as many and as long as may count."""
    x = random.normal(size=(most, HIDDEN))
    x *= clip / np.linalg.norm(x, axis=1, keepdims=True)
    return Examples(x, random.integers(0, CLASSES, most))


def largest(devices: Sequence[Examples], count: int) -> list[int]:
    """The devices with the most examples: they harm most."""
    return sorted(range(len(devices)), key=lambda i: -len(devices[i]))[:count]
