"""Run the demo of variants: `make demo-variants`.

One source model becomes several builds, guarded by data; they go out as one version; each class of
devices ends on the build that devices of it measured to be best. Three real agents are of this
machine's class. Nine simulated devices, with real keys and signatures, say that they are three
kinds of other boards, and what such boards measure.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from demo.account import Account, PromiseBroken
from demo.stage import REPO, CommandFailed, Stage

MODEL, VERSION, GROUP = "detector", "1.0.0", "everyone"
AGENTS = ["cam-1", "cam-2", "cam-3"]
BOARDS = 9
BUILDS = ["onnx-fp32", "onnx-int8", "onnx-fp16"]
OPTIMIZE_S = 600
POLICY = """\
name: fastest
waves: [{percent: 100%}]
choose: {minimise: latency, subject: {top1: ">=0.95"}, keep: 10%}
"""
# an old processor, on which the 8-bit build is not offered; an ARM board that is quickest in 16
# bits; and one that says it has the instructions, but answers the golden cases otherwise
PROFILE = """\
poll: 1
check_in: 1
selftest: 0.5
probation: 1
slices:
  - {name: old, labels: {site: demo}, facts: {arch: x86_64, cpu.model: Celeron, cpu.avx2: true}}
  - {name: arm, labels: {site: demo}, facts: {cpu.model: Cortex-A76, cpu.dotprod: true}}
  - {name: odd, labels: {site: demo}, facts: {cpu.model: Oddity, cpu.avx_vnni: true}}
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
        words = ["--calibration", "cal.npz", "--evaluate", "test.npz", "--max-loss", "2%"]
        words += [word for name in BUILDS for word in ("--only", name)]
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
        self.account.chapter("Devices of each class measure, three of each and no more")
        stage = self.stage
        stage.pilotwave("groups", "create", GROUP, "--selector", "site=demo")
        made = stage.ask("codes", "create", "--count", str(len(AGENTS)), "--label", "site=demo")
        codes = [item["code"] for item in (made["items"] if isinstance(made, dict) else made)]
        for device, code in zip(AGENTS, codes, strict=True):
            words = ("--server", stage.url, "--name", device, "--code", code)
            stage.run(
                *("pilotwave-agent", "enrol", *words, "--root", "keys/root.json", "--data", device)
            )
            config = stage.root / device / "agent.toml"
            config.write_text(config.read_text() + "\nprobation_s = 1\n")
            stage.start(device, "pilotwave-agent", "run", "--data", device)
        (stage.root / "profile.yaml").write_text(PROFILE)
        (stage.root / "policy.yaml").write_text(POLICY)
        by = ("--policy-file", "policy.yaml", "--start")
        stage.pilotwave("rollouts", "create", MODEL, VERSION, "--group", GROUP, *by)
        fleet = ("--devices", str(BOARDS), "--profile", "profile.yaml", "--prefix", "board")
        keep = ("--for", "30m", "--root", "keys/root.json", "--keep")
        stage.start("boards", "pilotwave", "simulate", *fleet, *keep)
        for device in (*AGENTS, *FIRST_BOARDS.values()):
            self.account.wait(
                f"{device} runs the variant that its class chose",
                partial(self.settled, device),
            )

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
        chosen = "median of 3 devices" in told["sentence"] and runs == [told["variant"]]
        return runs[0] if chosen else None

    def show_why(self) -> None:
        self.account.chapter("What each class got, and by which numbers")
        for name, device in {"this machine": AGENTS[0], **FIRST_BOARDS}.items():
            told = self.why(device)
            numbers = told["sentence"].partition(". ")[2]
            print(f"  {name:<13} {device:<13} {told['variant']:<10} {numbers}", flush=True)
            right = told["variant"] == EXPECTED.get(name, told["variant"])
            self.account.promise(f"class {name} got {told['variant']}", right, told)
        asked = {
            device: self.stage.ask("devices", "events", device, "--limit", "200")
            for device in AGENTS
        }
        spoke = [d for d, events in asked.items() if any(e["kind"] == "measured" for e in events)]
        self.account.promise("each real agent measured here", spoke == AGENTS, spoke)


def main() -> int:
    """Play the story; return 0 if every promise was kept."""
    quick = {"PILOTWAVE_POLL_INTERVAL_S": "1", "PILOTWAVE_CHECK_IN_INTERVAL_S": "1"}
    account = Account()
    with tempfile.TemporaryDirectory(prefix="pilotwave-demo-") as folder:
        stage = Stage(Path(folder), settings=quick)
        try:
            Variants(stage, account).play()
        except (PromiseBroken, CommandFailed) as e:
            print(f"demo-variants: FAILED: {e}", flush=True)
            return 1
        finally:
            stage.close()
    print("demo-variants: ok", flush=True)
    return 0


if __name__ == "__main__":
    sys.path.insert(0, str(REPO))
    sys.exit(main())
