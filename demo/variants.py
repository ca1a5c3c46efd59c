"""Run the demo of variants: `make demo-variants`.

One source model becomes six builds, guarded by data; they go out as one version; each device ends
on the build that devices of its class measured to be best for its group. Six real agents hide what
other boards have not, and three groups ask for other things. Nine simulated devices, with real keys
and signatures, say that they are three kinds of other boards, and what such boards measure.
"""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from typing import Any

from demo.account import Account
from demo.play import play
from demo.stage import REPO, CommandFailed, Stage

MODEL, VERSION = "detector", "1.0.0"
BOARDS = 9
BUILDS = ["onnx-int8", "onnx-fp32", "onnx-fp16", "openvino-fp16"]
PRUNED = {"pruned": "pruned.onnx", "pruned-openvino": "pruned-openvino"}
OPTIMIZE_S = 600
POLICY = """\
name: {group}
waves: [{{percent: 100%}}]
choose: {{minimise: {minimise}, subject: {subject}, keep: 10%}}
"""
TOP1 = '{top1: ">=0.97"}'
GROUPS = {
    "fast": {"minimise": "latency", "subject": TOP1},
    "compact": {"minimise": "bytes", "subject": TOP1},
    "tiny": {"minimise": "bytes", "subject": "{}"},
}
INT8 = [f"cpu.{name}" for name in ("avx512_vnni", "avx_vnni", "amx_int8", "dotprod", "i8mm")]
ONNX, OPENVINO = "runtime.onnxruntime", "runtime.openvino"
# a real agent: its group, the facts that it hides, and the build that it is to end on
AGENTS = {
    "cam-new": ("fast", [OPENVINO], "onnx-int8"),
    "cam-old": ("fast", [*INT8, OPENVINO], "onnx-fp32"),
    "cam-intel": ("fast", [ONNX], "openvino-fp16"),
    "cam-small": ("compact", [*INT8, OPENVINO], "onnx-fp16"),
    "cam-tiny": ("tiny", [*INT8, OPENVINO], "pruned"),
    "cam-stick": ("tiny", [ONNX], "pruned-openvino"),
}
# an old processor, on which the 8-bit build is not offered; an ARM board that is quickest in 16
# bits; and one that says it has the instructions, but answers the golden cases otherwise
PROFILE = """\
poll: 1
check_in: 1
selftest: 0.5
probation: 1
slices:
  - {name: old, labels: {site: fast}, facts: {arch: x86_64, cpu.model: Celeron, cpu.avx2: true}}
  - {name: arm, labels: {site: fast}, facts: {cpu.model: Cortex-A76, cpu.dotprod: true}}
  - {name: odd, labels: {site: fast}, facts: {cpu.model: Oddity, cpu.avx_vnni: true}}
measures:
  - {slice: old, variant: onnx-fp32, p05_ms: 1.9}
  - {slice: old, variant: onnx-fp16, p05_ms: 4.4}
  - {slice: arm, variant: onnx-fp32, p05_ms: 1.2}
  - {slice: arm, variant: onnx-int8, p05_ms: 0.8}
  - {slice: arm, variant: onnx-fp16, p05_ms: 0.6}
  - {slice: odd, variant: onnx-int8, failed: selftest_agreement}
  - {slice: odd, variant: onnx-fp16, p05_ms: 3.1}
  - {slice: odd, variant: onnx-fp32, p05_ms: 1.4}
"""
EXPECTED = {"old": "onnx-fp32", "arm": "onnx-fp16", "odd": "onnx-fp32"}
FIRST_BOARDS = {name: f"board-{n * 3:06}" for n, name in enumerate(EXPECTED)}


class Variants:
    """Plays the chapters in order on a stage and writes the account."""

    def __init__(self, stage: Stage, account: Account) -> None:
        self.stage, self.account = stage, account

    def play(self) -> None:
        self.make_the_builds()
        self.publish_them_as_one_version()
        self.roll_out_and_let_devices_measure()
        self.show_why()

    def make_the_builds(self) -> None:
        self.account.chapter("One model becomes several builds, guarded by labelled data")
        made = self.stage.start_python("source", "demo.source_model", str(self.stage.root))
        self._end("source", made)
        words = ["--calibration", "cal.npz", "--evaluate", "test.npz", "--max-loss", "8%"]
        words += [word for name in BUILDS for word in ("--only", name)]
        words += [word for name, file in PRUNED.items() for word in ("--also", f"{name}={file}")]
        optimize = self.stage.start(
            "optimize", "pilotwave", "optimize", "model.onnx", *words, "--out", "variants"
        )
        self._end("optimize", optimize)
        print((self.stage.root / "variants" / "report.txt").read_text(), flush=True)

    def _end(self, name: str, process: subprocess.Popen[bytes]) -> None:
        if process.wait(OPTIMIZE_S):
            said = (self.stage.root / f"{name}.log").read_text(errors="replace")[-800:]
            raise CommandFailed(f"{name} ended with {process.returncode}: {said}")

    def publish_them_as_one_version(self) -> None:
        self.account.chapter("All of them are signed as one version")
        stage = self.stage
        token = ("--data", "data", "--fleet", "demo", "--token-file", "admin.token")
        stage.run("pilotwave-server", "init", *token)
        stage.start_server()
        stage.pilotwave("keys", "init", "--dir", "keys", "--plain")
        stage.pilotwave("models", "create", MODEL, "--publisher", "keys/publisher.pem")
        key = ("--key", "keys/publisher.pem", "--no-try")  # `optimize` tried them
        self.account.say(
            stage.pilotwave("publish", MODEL, VERSION, "--from", "variants", *key).strip()
        )

    def roll_out_and_let_devices_measure(self) -> None:
        self.account.chapter("Three groups choose by other things; devices of each class measure")
        stage = self.stage
        for device, (group, hidden, _) in AGENTS.items():
            self.enrol(device, group, hidden)
        for group, asked in GROUPS.items():
            stage.pilotwave("groups", "create", group, "--selector", f"site={group}")
            policy = stage.root / f"{group}.yaml"
            policy.write_text(POLICY.format(group=group, **asked))
            by = ("--policy-file", policy.name, "--start")
            stage.pilotwave("rollouts", "create", MODEL, VERSION, "--group", group, *by)
        for device in AGENTS:
            stage.start(device, "pilotwave-agent", "run", "--data", device)
        (stage.root / "profile.yaml").write_text(PROFILE)
        fleet = ("--devices", str(BOARDS), "--profile", "profile.yaml", "--prefix", "board")
        keep = ("--for", "30m", "--root", "keys/root.json", "--keep")
        stage.start("boards", "pilotwave", "simulate", *fleet, *keep)
        for device in (*AGENTS, *FIRST_BOARDS.values()):
            self.account.wait(
                f"{device} runs the variant that its class chose",
                partial(self.settled, device),
            )

    def enrol(self, device: str, group: str, hidden: list[str]) -> None:
        stage = self.stage
        made = stage.ask("codes", "create", "--label", f"site={group}")
        (code,) = [item["code"] for item in (made["items"] if isinstance(made, dict) else made)]
        words = ("--server", stage.url, "--name", device, "--code", code)
        stage.run("pilotwave-agent", "enrol", *words, "--root", "keys/root.json", "--data", device)
        config = stage.root / device / "agent.toml"
        told = f"\nprobation_s = 1\n[facts]\nhide = {json.dumps(hidden)}\n"
        config.write_text(config.read_text() + told)

    def why(self, device: str) -> dict[str, Any]:
        found: dict[str, Any] = self.stage.ask("devices", "why", device, "--model", MODEL)
        return found

    def settled(self, device: str) -> str | None:
        """Return the variant that a device runs in good health, once its class has chosen it."""
        try:
            told = self.why(device)
            models = self.stage.ask("devices", "show", device)["models"]
        except CommandFailed:
            return None  # it has not enrolled yet
        runs = [m["current_variant"] for m in models if m["state"] == "healthy"]
        words = ("measured on this device", "alone keeps", "median of 3 devices")
        chosen = any(w in told["sentence"] for w in words) and runs == [told["variant"]]
        return runs[0] if chosen else None

    def show_why(self) -> None:
        self.account.chapter("What each device got, and by which numbers")
        expected = {device: variant for device, (_, _, variant) in AGENTS.items()}
        if not any(name in INT8 for name in self.facts("cam-new")):
            expected["cam-new"] = expected["cam-old"]  # this machine is an old one itself
        expected |= {FIRST_BOARDS[name]: variant for name, variant in EXPECTED.items()}
        for device, variant in expected.items():
            told = self.why(device)
            numbers = told["sentence"].partition(". ")[2]
            print(f"  {device:<13} {told['variant']:<16} {numbers}", flush=True)
            self.account.promise(f"{device} got {variant}", told["variant"] == variant, told)

    def facts(self, device: str) -> dict[str, Any]:
        found: dict[str, Any] = self.stage.ask("devices", "show", device)["facts"]
        return found


if __name__ == "__main__":
    sys.path.insert(0, str(REPO))
    sys.exit(play("demo-variants", Variants))
