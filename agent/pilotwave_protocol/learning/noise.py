"""Privacy noise: how much of it each device adds, so that the sum of many tells little of any one.

What is promised is (epsilon, delta)-differential privacy for all that one device sends under a plan
(its examples of every round, against none at all), to whoever sees the sums of at least
`least_devices` honest devices, and what is made of these. Each device adds its share: so many
independent Gaussians add up to one of the size that the promise takes.
"""

from __future__ import annotations

import math
import os

import numpy as np

from pilotwave_protocol.learning.plan import Method, Noise, TrainingPlan
from pilotwave_protocol.learning.statistics import Floats

_TURNS = 200
_ROUNDING = 1.001
"""What decimal texts and float32 may add to a length."""
_TAIL = 8.0
"""Standard deviations: an honest device's noise is longer once in 10^13 times."""


def sensitivity(plan: TrainingPlan) -> float:
    """The longest vector that a device adds over all rounds, as a Euclidean norm.

    `ridge`: an example adds zz' (its upper triangle: at most |z|² long) and z in its class's column
    (|z| long), where z is an embedding of at most `clip` and a one. `sgd`: changes of at most
    `clip`; several rounds are one of the root of their number times the length, as Gaussian
    mechanisms compose exactly so (Dong, Roth and Su, "Gaussian Differential Privacy", JRSS B 2022,
    corollary 3.3), also where a round depends on those before it.
    """
    clip = float(plan.clip)
    if plan.method is Method.SGD:
        return clip * math.sqrt(plan.rounds)
    square = clip**2 + 1
    return plan.most_examples * math.sqrt(square**2 + square)


def share(plan: TrainingPlan) -> float:
    """The standard deviation of the noise that one device adds to each of its numbers."""
    if plan.noise is None:
        return 0.0
    return sensitivity(plan) / _ratio(plan.noise) / math.sqrt(plan.least_devices)


def longest(plan: TrainingPlan, alone: float, numbers: int) -> float:
    """How long so many numbers with a device's noise may be, which are `alone` long without it
    (Laurent and Massart, Annals of Statistics 2000, lemma 1, on the tail of chi-squared)."""
    return alone + share(plan) * (math.sqrt(numbers) + _TAIL)


def longest_head(plan: TrainingPlan, number: int) -> float:
    """How long the head may be that a round goes on from: no result of a round is longer than the
    longest change in it."""
    start = float(plan.head.length) if plan.head else 0.0
    change = longest(plan, float(plan.clip), plan.head_bytes // 4)
    return (start + (number - 1) * change) * _ROUNDING


def ridge(plan: TrainingPlan, devices: int) -> float:
    """What to add to the penalty so that sums with the noise of so many devices can be solved: a
    symmetric matrix of noise has no eigenvalue below minus twice its size times the root of its
    width (Wigner, Annals of Mathematics 1958)."""
    return 2 * share(plan) * math.sqrt(devices * (plan.features + 1))


def gaussians(count: int) -> Floats:
    """Draw standard Gaussians from the system's random bytes; nobody can draw them again.

    Each is half the sum of four, so that which float came out does not tell where it came from
    (Holohan and Braghin, "Secure Random Sampling in Differential Privacy", ESORICS 2021).
    """
    raw = np.frombuffer(os.urandom(64 * count), np.uint64).reshape(8, count)
    uniform = ((raw >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
    four = np.sqrt(-2 * np.log(uniform[:4])) * np.cos(2 * np.pi * uniform[4:])  # Box and Muller
    return np.asarray(four.sum(axis=0) / 2)


def _ratio(noise: Noise) -> float:
    """The largest sensitivity, in standard deviations of the noise, that keeps the promise."""
    low, high = 0.0, 1.0
    while _delta(high, float(noise.epsilon)) < float(noise.delta):
        low, high = high, 2 * high
    for _ in range(_TURNS):
        middle = (low + high) / 2
        if _delta(middle, float(noise.epsilon)) <= float(noise.delta):
            low = middle
        else:
            high = middle
    return low


def _delta(ratio: float, epsilon: float) -> float:
    """The delta of Gaussian noise (Balle and Wang, "Improving the Gaussian Mechanism for
    Differential Privacy", ICML 2018, theorem 8)."""
    if ratio == 0:
        return 0.0
    above = _below(ratio / 2 - epsilon / ratio)
    return above - math.exp(epsilon) * _below(-ratio / 2 - epsilon / ratio)


def _below(z: float) -> float:
    """The share of a standard Gaussian below `z`."""
    return math.erfc(-z / math.sqrt(2)) / 2
