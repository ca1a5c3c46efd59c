"""A small network for the digits of scikit-learn, and how the recipes here train and export it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

BATCH = 32
torch.set_num_threads(1)  # so small a network is slower on several


def data() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """1,000 images of 8x8 pixels to train on, their classes, and 797 others with theirs."""
    found = load_digits()
    images = torch.as_tensor(found.data.reshape(-1, 1, 8, 8) / 16, dtype=torch.float32)
    labels = torch.as_tensor(found.target)
    order = torch.as_tensor(np.random.RandomState(0).permutation(len(images)))
    images, labels = images[order], labels[order]
    return images[:1000], labels[:1000], images[1000:], labels[1000:]


def network(width: int) -> nn.Sequential:
    """Two convolutions of `width` and twice as many filters, then two layers."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(width, 2 * width, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(2 * width * 16, 4 * width),
        nn.ReLU(),
        nn.Linear(4 * width, 10),
    )


Loss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def by_labels(answers: torch.Tensor, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return nn.functional.cross_entropy(answers, labels)


def train(
    net: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    epochs: int,
    loss: Loss = by_labels,
) -> None:
    torch.manual_seed(1)
    optimizer = torch.optim.AdamW(net.parameters(), 2e-3)
    net.train()
    for _ in range(epochs):
        for part in torch.randperm(len(images)).split(BATCH):
            step = loss(net(images[part]), images[part], labels[part])
            optimizer.zero_grad()
            step.backward()
            optimizer.step()
    net.eval()


def accuracy(net: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    with torch.no_grad():
        return float((net(images).argmax(1) == labels).float().mean())


def weights(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def export(net: nn.Module, path: Path) -> None:
    """Write an ONNX file of one input `x` and one output `logits`, of any number of rows."""
    torch.onnx.export(
        net,
        torch.zeros(1, 1, 8, 8),
        str(path),
        input_names=["x"],
        output_names=["logits"],
        dynamic_axes={"x": {0: "N"}, "logits": {0: "N"}},
        dynamo=False,
        opset_version=17,
    )


def save_data(folder: Path, images: torch.Tensor, labels: torch.Tensor) -> None:
    """Write what `pilotwave optimize` calibrates on and judges by."""
    np.savez(folder / "cal.npz", x=images[:200].numpy())
    np.savez(folder / "test.npz", x=images[200:].numpy(), labels=labels[200:].numpy())
