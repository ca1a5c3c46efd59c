"""Networks that `_optimize_models.py` trains; PyTorch is of the bench's own environment."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

_BATCH = 64
# expansion, channels, blocks, stride: https://arxiv.org/abs/1801.04381, table 2
_STAGES = ((1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2),
           (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))  # fmt: skip


def _conv(
    before: int, after: int, size: int, stride: int = 1, groups: int = 1, active: bool = True
) -> nn.Sequential:
    conv = nn.Conv2d(before, after, size, stride, size // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(after), *([nn.ReLU6()] if active else []))


class _Block(nn.Module):
    def __init__(self, before: int, after: int, stride: int, expand: int) -> None:
        super().__init__()
        inner = before * expand
        self.adds = stride == 1 and before == after
        self.body = nn.Sequential(
            *([_conv(before, inner, 1)] if expand > 1 else []),
            _conv(inner, inner, 3, stride, inner),
            _conv(inner, after, 1, active=False),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.body(x) if self.adds else self.body(x)


class MobileNetV2(nn.Sequential):
    def __init__(self) -> None:
        layers: list[nn.Module] = [_conv(1, 32, 3)]
        before = 32
        for expand, after, blocks, stride in _STAGES:
            for number in range(blocks):
                layers.append(_Block(before, after, 1 if number else stride, expand))
                before = after
        head = [_conv(before, 1280, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1280, 10)]
        super().__init__(*layers, *head)


class DigitsCnn(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(512, 64),
            nn.ReLU(),
            nn.Linear(64, 10),
        )


def train(net: nn.Module, images: np.ndarray, labels: np.ndarray, epochs: int) -> None:
    """Train from a fixed seed, and leave the network ready to answer."""
    torch.manual_seed(0)
    torch.set_flush_denormal(True)
    torch.set_num_threads(1)  # several wait for each other where cores are shared
    x, y = torch.as_tensor(images), torch.as_tensor(labels)
    steps = len(x) // _BATCH
    optimizer = torch.optim.AdamW(net.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=epochs * steps)
    net.train()
    for _ in range(epochs):
        order = torch.randperm(len(x))
        for step in range(steps):
            part = order[step * _BATCH : (step + 1) * _BATCH]
            loss = nn.functional.cross_entropy(net(x[part]), y[part])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    net.eval()


def export(net: nn.Module, example: np.ndarray, path: Path) -> None:
    """Write an ONNX file of one input `x` and one output `logits`, of any number of rows."""
    axes = {"x": {0: "N"}, "logits": {0: "N"}}
    torch.onnx.export(
        net, torch.as_tensor(example), str(path), input_names=["x"], output_names=["logits"],
        dynamic_axes=axes, dynamo=False, opset_version=17,
    )  # fmt: skip
