"""Structured pruning: take whole filters out, then train on. Python needs torch, torch-pruning,
scikit-learn and onnx: `python prune.py` writes here, and says what it costs."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
import torch_pruning
from nets import accuracy, data, export, network, save_data, train, weights
from torch import nn

WIDTH, EPOCHS, TUNING = 16, 20, 8
SHARES = (0.3, 0.5, 0.7)
HERE = Path(__file__).parent


def pruned(net: nn.Sequential, share: float) -> nn.Sequential:
    """Return a copy without the given share of the weakest filters; the last layer keeps its
    outputs."""
    found = copy.deepcopy(net)
    pruner = torch_pruning.pruner.MagnitudePruner(
        found,
        torch.zeros(1, 1, 8, 8),
        importance=torch_pruning.importance.GroupMagnitudeImportance(p=1),
        pruning_ratio=share,
        ignored_layers=[found[-1]],
    )
    pruner.step()
    return found


def main() -> None:
    images, labels, held_out, classes = data()
    net = network(WIDTH)
    train(net, images, labels, EPOCHS)
    export(net, HERE / "model.onnx")
    save_data(HERE, held_out, classes)
    print(f"as trained: {weights(net)} weights, {accuracy(net, held_out, classes):.4f}")
    for share in SHARES:
        small = pruned(net, share)
        before = accuracy(small, held_out, classes)
        train(small, images, labels, TUNING)
        after = accuracy(small, held_out, classes)
        export(small, HERE / f"pruned-{share:.0%}.onnx".replace("%", ""))
        print(f"without {share:.0%}: {weights(small)} weights, {before:.4f}, tuned {after:.4f}")


if __name__ == "__main__":
    main()
