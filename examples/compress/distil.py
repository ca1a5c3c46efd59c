"""Distillation: train a small network on the answers of a large one, and once on labels alone, to
see whether that pays. Python needs torch, scikit-learn and onnx: `python distil.py` writes here."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
from nets import accuracy, by_labels, data, export, network, save_data, train, weights
from torch import nn

TEACHER, STUDENT, EPOCHS = 16, 3, 20
SOFTER = 3.0
HERE = Path(__file__).parent


def by_teacher(
    teacher: nn.Module, answers: torch.Tensor, images: torch.Tensor, labels: torch.Tensor
) -> torch.Tensor:
    """Half by the labels, half by how near the teacher's softened answers are (Hinton and others,
    https://arxiv.org/abs/1503.02531)."""
    with torch.no_grad():
        wanted = torch.softmax(teacher(images) / SOFTER, 1)
    near = nn.functional.kl_div(
        torch.log_softmax(answers / SOFTER, 1), wanted, reduction="batchmean"
    )
    return by_labels(answers, images, labels) / 2 + near * SOFTER**2 / 2


def main() -> None:
    images, labels, held_out, classes = data()
    teacher = network(TEACHER)
    train(teacher, images, labels, EPOCHS)
    export(teacher, HERE / "model.onnx")
    save_data(HERE, held_out, classes)
    print(f"teacher: {weights(teacher)} weights, {accuracy(teacher, held_out, classes):.4f}")
    for name, loss in (("alone", by_labels), ("distilled", partial(by_teacher, teacher))):
        student = network(STUDENT)
        train(student, images, labels, EPOCHS, loss)
        export(student, HERE / f"{name}.onnx")
        print(f"{name}: {weights(student)} weights, {accuracy(student, held_out, classes):.4f}")


if __name__ == "__main__":
    main()
