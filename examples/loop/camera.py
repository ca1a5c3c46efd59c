"""The application of the loop: on each device it reads digits from a camera, all the time.

    python -m examples.loop.camera FOLDER…        each a device's data folder

`scene.npz` in the current folder is what the cameras see. As this is an example, it also says what
is drawn there, by which `right.json` counts the right answers of each version on each scene.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pilotwave_agent.live import LiveModel

PER_SECOND = 30


class Scene(NamedTuple):
    """Images [N, 64] in 0 to 1, and the digits that they show."""

    name: str
    x: np.ndarray
    labels: np.ndarray

    @classmethod
    def now(cls) -> Scene:
        with np.load("scene.npz") as file:
            return cls(str(file["name"]), file["x"], file["labels"])


class Cameras:
    """What all devices look at, and how many of their answers were right."""

    def __init__(self) -> None:
        self.scene, self.stop = Scene.now(), threading.Event()
        self.answers, self.right = Counter[str](), Counter[str]()

    def watch(self, folder: str, seed: int) -> None:
        """Read image after image with the device's current version."""
        rng = np.random.default_rng(seed)
        with LiveModel("detector", data=folder, wait_s=None, heartbeat_s=1.0) as model:
            while not self.stop.wait(1 / PER_SECOND):
                scene = self.scene
                n = rng.integers(len(scene.x))
                answer = model.run({"x": scene.x[n : n + 1]})
                model.score(float(answer["probs"].max()), answer, metric="confidence")
                key = f"{scene.name} {answer.version.version}"
                self.answers[key] += 1
                self.right[key] += bool(answer["probs"].argmax() == scene.labels[n])

    def tell(self) -> None:
        """Write the counts down, and look whether the scene is another one."""
        counts = {key: [self.right[key], n] for key, n in self.answers.copy().items()}
        Path("right.json.new").write_text(json.dumps(counts))
        os.replace("right.json.new", "right.json")
        self.scene = Scene.now()


def main() -> None:
    """Go on until the process is ended."""
    cameras = Cameras()
    for seed, folder in enumerate(sys.argv[1:]):
        threading.Thread(target=cameras.watch, args=(folder, seed), daemon=True).start()
    while not cameras.stop.wait(0.5):
        cameras.tell()


if __name__ == "__main__":
    main()
