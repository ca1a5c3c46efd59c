"""Train the bigger model of `bench/tiers.py`: PYTHON _tiers_big.py FILE.

A convolutional network of 151 k weights on the images that the example detector was trained on,
clean and as a poor camera sees them. PyTorch and scikit-learn are of an environment of its own.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from _optimize_nets import export, train
from torch import nn

sys.path.insert(0, str(Path(__file__).parent.parent / "examples" / "digits"))
from train import camera, load_data, scaled

EPOCHS, SEEN = 12, 3


def main(path: Path) -> None:
    levels, labels = load_data().train
    chance = np.random.RandomState(5)
    clean = scaled(levels)
    images = np.concatenate([clean, *(camera(clean, chance) for _ in range(SEEN))])
    net = nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Conv2d(1, 32, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(1024, 128),
        nn.ReLU(),
        nn.Linear(128, 10),
    )
    train(net, images.astype(np.float32), np.tile(labels.astype(np.int64), 1 + SEEN), EPOCHS)
    export(net, images[:1].astype(np.float32), path)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
