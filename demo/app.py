"""The demo's application: on each device it reads digits through a poor camera, all the time.

It uses the application's side of Pilotwave (`LiveModel`) as any application would, and says how
sure the model was of each answer. It prints which version answers, whenever that changes. One
process stands for the applications of all devices.

    python -m demo.app FOLDER…        each a device's data folder
"""

from __future__ import annotations

import itertools
import sys
import threading
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from pilotwave_agent.live import LiveModel

IMAGES = Path(__file__).resolve().parent.parent / "examples" / "digits" / "held_out.safetensors"
PER_SECOND = 20


def watch(folder: str, images: np.ndarray, stop: threading.Event) -> None:
    """Read image after image with the device's current version."""
    model = LiveModel("detector", data=folder, wait_s=None, heartbeat_s=1.0)
    answers = ""
    for image in itertools.cycle(images):
        if stop.wait(1 / PER_SECOND):
            break
        answer = model.run({"x": image[None, :]})
        if answers != answer.version.version:
            answers = answer.version.version
            print(f"{Path(folder).name} has answers of {answers}", flush=True)
        model.score(float(answer["probs"].max()), answer, metric="confidence")
    model.close()


def main() -> None:
    """Go on until the process is ended."""
    images = (load_file(IMAGES)["in_use"] / 16).astype("float32")
    stop = threading.Event()
    for folder in sys.argv[1:]:
        threading.Thread(target=watch, args=(folder, images, stop), daemon=True).start()
    stop.wait()


if __name__ == "__main__":
    main()
