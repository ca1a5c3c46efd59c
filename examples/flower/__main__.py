"""Train with Flower, ship with Pilotwave: `python -m examples.flower [--flower-python PATH]`.

Cameras in the field see digits otherwise than 1.1.0 was trained for. Flower trains all its layers
on labelled images that stay with three nodes. What comes back is put into the model, judged at the
desk, signed, and goes to one device and then to the other. All programs are real, on loopback.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from demo.account import Account, PromiseBroken
from demo.stage import CommandFailed, Stage
from examples.flower import field
from examples.flower.convert import convert, weights_of
from examples.flower.training import Flower, install
from pilotwave_agent.live import LiveModel

MODEL, FIRST, BETTER = "detector", "1.1.0", "1.4.0"
DEVICES = ["cam-1", "cam-2"]
NODES, ROUNDS = 3, 3
MOST_LOSS = "5%"
SETTINGS = "\nmetered = false\nprobation_s = 1\n"
POLICY = """\
name: one-then-all
waves:
  - {name: canary, count: 1, soak: 3s, gates: [{max_failure_rate: 5%}]}
  - {name: everyone, percent: 100%, gates: [{max_failure_rate: 5%}]}
"""


class Story:
    """Plays the steps in order on a stage and writes the account."""

    def __init__(self, stage: Stage, account: Account, flower_python: Path | None) -> None:
        self.stage, self.account, self.root = stage, account, stage.root
        self.flower_python = flower_python

    def play(self) -> None:
        self.bring_up_the_fleet()
        before = self.right_in_use(FIRST)
        self.train_with_flower()
        self.judge()
        self.roll_out()
        after = self.right_in_use(BETTER)
        self.account.promise(
            f"{before:.1%} were right in use before, {after:.1%} after", after > before + 0.2
        )

    # --- steps

    def bring_up_the_fleet(self) -> None:
        self.account.chapter(
            f"Two devices run {MODEL} {FIRST}; their cameras are not the factory's"
        )
        stage = self.stage
        init = ("--data", "data", "--fleet", "field", "--token-file", "admin.token")
        stage.run("pilotwave-server", "init", *init)
        stage.start_server()
        stage.pilotwave("keys", "init", "--dir", "keys", "--plain")
        stage.pilotwave("models", "create", MODEL, "--publisher", "keys/publisher.pem")
        stage.pilotwave("groups", "create", "cams", "--selector", "site=field")
        for device in DEVICES:
            self.start_device(device)
        self.account.say("a server, a publisher's key, and two devices that trust it are there")
        shutil.copytree(field.DIGITS / FIRST, self.root / "first")
        self.publish(FIRST, "--variant", "onnx-fp32=first")
        stage.pilotwave("assign", "--yes", MODEL, FIRST, "--group", "cams")

    def start_device(self, device: str) -> None:
        made = self.stage.ask("codes", "create", "--label", "site=field")
        code = (made["items"] if isinstance(made, dict) else made)[0]["code"]
        who = ("--server", self.stage.url, "--name", device, "--code", code)
        root = ("--root", "keys/root.json", "--data", device)
        self.stage.run("pilotwave-agent", "enrol", *who, *root)
        config = self.root / device / "agent.toml"
        config.write_text(config.read_text() + SETTINGS)
        self.stage.start(device, "pilotwave-agent", "run", "--data", device)

    def train_with_flower(self) -> None:
        self.account.chapter(f"Flower trains all layers at {NODES} nodes, whose images stay there")
        python = self.flower_python
        if python is None:
            began = time.monotonic()
            python = install(self.root / "flower-environment")
            self.account.say(f"Flower's environment is made, in {time.monotonic() - began:.0f} s")
        start = self.root / "start.safetensors"
        save_file(dict(weights_of(self.root / "first" / "model.onnx")), start)
        flower = Flower(python, self.root / "flower")
        try:
            flower.start_superlink()
            for node, (x, labels) in enumerate(field.shared_out(field.seen("nodes"), NODES), 1):
                data = self.root / f"node-{node}.npz"
                np.savez(data, x=x, labels=labels)
                flower.start_supernode(f"node-{node}", data)
                count = ", ".join(f"{n}" for n in np.bincount(labels, minlength=field.CLASSES))
                self.account.say(f"node {node} has {len(x)} images, by digit: {count}")
            began = time.monotonic()
            flower.train(start, self.root / "trained.safetensors", NODES, ROUNDS)
            took = time.monotonic() - began
            self.account.say(f"{ROUNDS} rounds of federated averaging took {took:.0f} s")
        finally:
            flower.close()

    def judge(self) -> None:
        self.account.chapter("At the desk the result is judged, and builds of it are made")
        convert(
            self.root / "first" / "model.onnx",
            self.root / "trained.safetensors",
            self.root / "trained.onnx",
        )
        x, _ = field.at_the_factory("desk")
        np.savez(self.root / "cal.npz", x=x)
        x, labels = field.seen("desk")
        np.savez(self.root / "test.npz", x=x, labels=labels)
        against = ("--only", "onnx-fp32", "--also", "trained=trained.onnx", "--out", "judged")
        rows = {row["name"]: row for row in self.optimize("first/model.onnx", *against)}
        old, new = rows["onnx-fp32"]["figures"], rows["trained"]["figures"]
        self.account.promise(
            f"of {new['rows']} images at the desk {FIRST} gets {float(old['top1']):.1%} right, the"
            f" trained model {float(new['top1']):.1%}; {new['worse']} became wrong",
            rows["trained"]["state"] == "accepted",
            rows["trained"]["why"],
        )
        self.optimize(
            "trained.onnx", "--only", "onnx-fp32", "--only", "onnx-fp16", "--out", "variants"
        )
        print((self.root / "variants" / "report.txt").read_text(), flush=True)

    def roll_out(self) -> None:
        self.account.chapter(f"The publisher signs it as {BETTER}; it goes to one device, then all")
        self.publish(BETTER, "--from", "variants")
        (self.root / "policy.yaml").write_text(POLICY)
        words = ("--group", "cams", "--policy-file", "policy.yaml", "--start")
        rollout = self.stage.ask("rollouts", "create", MODEL, BETTER, *words)["id"]
        self.account.wait(
            "the rollout is complete",
            lambda: self.stage.ask("rollouts", "show", rollout)["state"] == "completed" or None,
        )
        for decision in reversed(self.stage.ask("rollouts", "decisions", rollout)):
            self.account.say(f"{decision['action']}: {decision['sentence']}")

    # --- doing and looking

    def publish(self, version: str, *what: str) -> None:
        key = ("--key", "keys/publisher.pem")
        said = self.stage.pilotwave("publish", MODEL, version, *what, *key, "--yes")
        self.account.say(said.strip())

    def optimize(self, source: str, *words: str) -> list[dict[str, Any]]:
        """Judge builds of a model by the desk's own labelled images; return the report's rows."""
        data = ("--calibration", "cal.npz", "--evaluate", "test.npz", "--max-loss", MOST_LOSS)
        found: list[dict[str, Any]] = self.stage.ask("optimize", source, *data, *words)["rows"]
        return found

    def right_in_use(self, version: str) -> float:
        """Wait for the devices; return how many of their applications' answers are right."""
        x, labels = field.seen("unseen")
        right = 0
        for device in DEVICES:
            self.account.wait(
                f"{device} is healthy on {version}", lambda d=device: self.runs(d, version)
            )
            with LiveModel(MODEL, data=self.root / device, app="use", wait_s=60) as model:
                for image, label in zip(x, labels, strict=True):
                    right += int(model.run({"x": image[None]})["probs"].argmax() == label)
        share = right / len(DEVICES) / len(labels)
        count = f"{right} of {len(DEVICES) * len(labels)} answers of {version} are right"
        self.account.say(f"{count}: {share:.1%}, on images that nothing was trained on")
        return share

    def runs(self, device: str, version: str) -> bool | None:
        models = self.stage.ask("devices", "show", device)["models"]
        return (
            any((m["state"], m["current_version"]) == ("healthy", version) for m in models) or None
        )


def main() -> int:
    """Play the story; return 0 if it came to its end."""
    parser = argparse.ArgumentParser(prog="python -m examples.flower", description=__doc__)
    parser.add_argument(
        "--flower-python", type=Path, help="Python of an environment that has requirements.txt"
    )
    given = parser.parse_args().flower_python
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    quick = {"PILOTWAVE_POLL_INTERVAL_S": "1", "PILOTWAVE_CHECK_IN_INTERVAL_S": "1"}
    account = Account()
    with tempfile.TemporaryDirectory(prefix="pilotwave-flower-") as folder:
        stage = Stage(Path(folder), settings=quick)
        try:
            Story(stage, account, given and given.absolute()).play()
        except (PromiseBroken, CommandFailed) as e:
            print(f"flower: FAILED: {e}", flush=True)
            return 1
        finally:
            stage.close()
    print("flower: ok", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
