"""Run the whole loop: `python -m examples.loop`.

A camera goes bad in the field. Devices notice, and keep inputs, sealed; at the desk they are opened
and labelled, the model is trained on with them, and the better one goes out: in shadow first, then
to one device, then to all. Server, agents and application are real programs on this machine.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections import Counter
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from demo.account import Account
from demo.play import play
from demo.stage import REPO, CommandFailed, Stage

MODEL, FIRST, BETTER = "detector", "1.1.0", "1.4.0"
DEVICES = ["cam-1", "cam-2", "cam-3"]
DIGITS = REPO / "examples" / "digits"
CASES, ANSWERS = 240, 600
BUILDS = ("onnx-fp32", "onnx-fp16", "onnx-int8")
SETTINGS = """
metered = false
probation_s = 1
[capture]
reader = "{reader}"
reasons = ["drift", "uniform"]
share = 0.01
"""
POLICY = """\
name: shadow-first
waves:
  - name: shadow
    percent: 100%
    shadow: {share: 100%, cpu: 50%, min_calls: 100}
    min_sample: 3
    gates:
      - {disagreement: {at_most: 50%}, min_devices: 3}
      - {score: {min_effect: 0.05}, min_devices: 3}
      - {errors: {at_most: 1%}, min_devices: 3}
  - {name: canary, count: 1, soak: 3s, gates: [{max_failure_rate: 5%}]}
  - {name: everyone, percent: 100%, gates: [{max_failure_rate: 5%}]}
"""
IMAGES = {"own": slice(0, 250), "today": slice(250, 500), "tomorrow": slice(500, None)}


def drawn(which: str) -> tuple[np.ndarray, np.ndarray]:
    """Return clean images [N, 64] and what they show; no image is in two of the parts."""
    held, part = load_file(DIGITS / "held_out.safetensors"), IMAGES[which]
    return held["clean"][part].astype(np.float32) / 16, held["label"][part].astype(np.int64)


def bad_camera(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Two columns of the sensor are too bright, and all of it is noisy."""
    columns = np.tile(np.isin(np.arange(8), (3, 4)) * 0.5, 8)
    return np.clip(x + columns + rng.normal(0, 0.15, x.shape), 0, 1).astype(np.float32)


class Loop:
    """Plays the steps in order on a stage and writes the account."""

    def __init__(self, stage: Stage, account: Account) -> None:
        self.stage, self.account, self.root = stage, account, stage.root
        self.rng = np.random.default_rng(5)
        self.truth: dict[bytes, int] = {}

    def play(self) -> None:
        self.bring_up_the_fleet()
        self.meet_a_bad_camera()
        self.label_what_was_captured()
        self.train_and_optimize()
        self.roll_out()

    # --- steps

    def bring_up_the_fleet(self) -> None:
        self.account.chapter(f"Three devices run {MODEL} {FIRST}, and cameras are good")
        stage = self.stage
        token = ("--data", "data", "--fleet", "loop", "--token-file", "admin.token")
        stage.run("pilotwave-server", "init", *token)
        stage.start_server()
        stage.pilotwave("keys", "init", "--dir", "keys", "--plain")
        said = stage.pilotwave("keys", "reader", "--out", "keys/reader.pem", "--plain")
        settings = SETTINGS.format(reader=said.split()[-1])
        for device in DEVICES:
            self.start_device(device, settings)
        stage.pilotwave("groups", "create", "cams", "--selector", "site=loop")
        x, labels = drawn("own")
        np.savez(self.root / "own.npz", x=x, labels=labels)
        np.savez(self.root / "inputs.npz", x=x)
        shutil.copytree(DIGITS / FIRST, self.root / "first")
        stage.pilotwave("reference", "first", "--inputs", "inputs.npz")
        stage.pilotwave("models", "create", MODEL, "--publisher", "keys/publisher.pem")
        self.publish(FIRST, "--variant", "onnx-fp32=first")
        stage.pilotwave("assign", "--yes", MODEL, FIRST, "--group", "cams")
        self.show("a good camera", x, labels)
        stage.start_python("camera", "examples.loop.camera", *DEVICES)
        for device in DEVICES:
            self.account.wait(f"{device} runs {FIRST}", lambda d=device: self.runs(d, FIRST))
        self.accuracy("a good camera", FIRST)

    def start_device(self, device: str, settings: str) -> None:
        (code,) = [
            c["code"] for c in rows(self.stage.ask("codes", "create", "--label", "site=loop"))
        ]
        who = ("--server", self.stage.url, "--name", device, "--code", code)
        self.stage.run(
            "pilotwave-agent", "enrol", *who, "--root", "keys/root.json", "--data", device
        )
        config = self.root / device / "agent.toml"
        config.write_text(config.read_text() + settings)
        self.stage.start(device, "pilotwave-agent", "run", "--data", device)

    def meet_a_bad_camera(self) -> None:
        self.account.chapter("The cameras go bad; devices notice it, and capture what is hard")
        x, labels = (np.concatenate([part] * 4) for part in drawn("today"))
        self.show("a bad camera", bad_camera(x, self.rng), labels)
        self.accuracy("a bad camera", FIRST)
        drifts = ("devices", "list", "--standing", "drifting")
        self.account.wait(
            "all devices say that their inputs drift",
            lambda: len(rows(self.stage.ask(*drifts))) == len(DEVICES) or None,
        )
        captured = ("captures", "list", "--limit", "10000")
        self.account.wait(
            f"{CASES} cases are at the server, which cannot read them",
            lambda: len(rows(self.stage.ask(*captured))) >= CASES or None,
        )

    def label_what_was_captured(self) -> None:
        self.account.chapter("At the desk the cases are opened, and a person labels them")
        pull = ("captures", "pull", "--to", "cases", "--key", "keys/reader.pem")
        self.account.say(self.stage.pilotwave(*pull).strip())
        index = self.root / "cases" / "cases.jsonl"
        cases = [json.loads(line) for line in index.read_text().splitlines()]
        for case in cases:
            image = load_file(index.parent / case["file"])["input.x"]
            case["label"] = self.truth[image.tobytes()]  # this person is never wrong
        index.write_text("".join(json.dumps(case) + "\n" for case in cases))
        reasons = Counter(case["reason"] for case in cases)
        self.account.say(f"{len(cases)} cases are labelled, by reason {dict(reasons)}")

    def train_and_optimize(self) -> None:
        self.account.chapter("The model is trained on with them; optimize makes and judges builds")
        words = ("first/model.onnx", "cases", "own.npz", BETTER)
        self.finish("retrain", self.stage.start_python("retrain", "examples.loop.retrain", *words))
        data = ("--calibration", "cal.npz", "--evaluate", "test.npz", "--max-loss", "5%")
        only = [word for build in BUILDS for word in ("--only", build)]
        words = ("optimize", "model.onnx", *data, *only, "--out", "variants")
        self.finish("optimize", self.stage.start("optimize", "pilotwave", *words))
        print((self.root / "variants" / "report.txt").read_text(), flush=True)
        self.publish(BETTER, "--from", "variants")

    def roll_out(self) -> None:
        self.account.chapter(f"{BETTER} goes out: in shadow, to one device, to all")
        x, labels = drawn("tomorrow")  # digits on which nothing was trained
        self.show("tomorrow", bad_camera(x, self.rng), labels)
        before = self.accuracy("tomorrow", FIRST)
        (self.root / "policy.yaml").write_text(POLICY)
        words = ("--group", "cams", "--policy-file", "policy.yaml", "--start")
        rollout = self.stage.ask("rollouts", "create", MODEL, BETTER, *words)["id"]
        self.account.wait(
            "in shadow it is as sure as the old one, or surer: the canary takes it",
            lambda: self.passed(rollout, wave=1),
        )
        self.account.wait("the rollout is complete", lambda: self.ended(rollout))
        for decision in reversed(self.stage.ask("rollouts", "decisions", rollout)):
            self.account.say(f"{decision['action']}: {decision['sentence']}")
        for device in DEVICES:
            self.account.wait(f"{device} runs {BETTER}", lambda d=device: self.runs(d, BETTER))
        after = self.accuracy("tomorrow", BETTER)
        self.account.promise(
            f"{before:.1%} were right in use before, {after:.1%} after", after > before + 0.05
        )

    # --- doing and looking

    def publish(self, version: str, *what: str) -> None:
        key = ("--key", "keys/publisher.pem")
        self.account.say(
            self.stage.pilotwave("publish", MODEL, version, *what, *key, "--yes").strip()
        )

    def finish(self, name: str, process: Any) -> None:
        if process.wait(300):
            said = (self.root / f"{name}.log").read_text(errors="replace")[-800:]
            raise CommandFailed(f"{name} ended with {process.returncode}: {said}")

    def show(self, scene: str, x: np.ndarray, labels: np.ndarray) -> None:
        """Let the cameras see these images from now on."""
        self.truth |= {image.tobytes(): int(n) for image, n in zip(x, labels, strict=True)}
        np.savez(self.root / "next.npz", name=scene, x=x, labels=labels)
        (self.root / "next.npz").replace(self.root / "scene.npz")

    def accuracy(self, scene: str, version: str) -> float:
        """Wait for enough answers of a version in use; return the share of right ones."""

        def counted() -> tuple[int, int] | None:
            path = self.root / "right.json"
            found = json.loads(path.read_text()) if path.exists() else {}
            right, answers = found.get(f"{scene} {version}", (0, 0))
            return (right, answers) if answers >= ANSWERS else None

        right, answers = self.account.wait(f"{version} answers, {scene}", counted)
        self.account.say(
            f"{right} of {answers} answers of {version} are right: {right / answers:.1%}"
        )
        return right / answers

    def runs(self, device: str, version: str) -> bool | None:
        models = self.stage.ask("devices", "show", device)["models"]
        return (
            any((m["state"], m["current_version"]) == ("healthy", version) for m in models) or None
        )

    def passed(self, rollout: str, *, wave: int) -> bool | None:
        found = self.stage.ask("rollouts", "decisions", rollout)
        return any((d["action"], d["wave"]) == ("open_wave", wave) for d in found) or None

    def ended(self, rollout: str) -> bool | None:
        return self.stage.ask("rollouts", "show", rollout)["state"] == "completed" or None


def rows(answer: Any) -> list[dict[str, Any]]:
    return answer["items"] if isinstance(answer, dict) else answer


if __name__ == "__main__":
    sys.exit(play("loop", Loop))
