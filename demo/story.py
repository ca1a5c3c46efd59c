"""The demo's story, in chapters, each with the promises it has to keep.

Six real agents, one server, real keys, signatures, models and runtimes. Device `cam-6` sits behind
a relay that tampers with blobs for a while.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import time
from pathlib import Path
from typing import Any

from demo.account import Account
from demo.relay import Relay
from demo.stage import REPO, Stage

DEVICES = [f"cam-{n}" for n in range(1, 7)]
SHADOWS = ["cam-1", "cam-2", "cam-3", "cam-4"]
CANARIES = SHADOWS[:2]
OFFLINE = "cam-5"
BEHIND_RELAY = "cam-6"
MODEL = "detector"
DIGITS = REPO / "examples" / "digits"
# which of the example's models goes out under which version: the third fails its self-test, the
# fourth was trained on nothing but its golden inputs
FILES = {"1.0.0": "1.0.0", "1.1.0": "1.1.0", "1.1.1": "1.2.0", "1.2.0": "1.3.0"}
POLICY = """\
name: canaries-first
waves:
  - name: shadow
    canary: {devices: [cam-1, cam-2, cam-3, cam-4]}
    shadow: {share: 100%, cpu: 50%, min_calls: 40}
    min_sample: 3
    gates:
      - {name: install, max_failure_rate: 1%}
      - {disagreement: {at_most: 25%}, min_devices: 3}
      - {score: {min_effect: 0.1}, min_devices: 3}
      - {errors: {at_most: 1%}, min_devices: 3}
  - name: canaries
    canary: {devices: [cam-1, cam-2]}
    min_sample: 2
    soak: 2s
    gates:
      - {name: install, max_failure_rate: 1%}
      - {name: confidence, metric: confidence, statistic: mean, worse: lower, min_effect: 10%,
         min_devices: 2, min_windows: 4, alpha: 5%}
  - percent: 100%
    gates: [{name: install, max_failure_rate: 5%}]
on_failure: rollback
"""


class Story:
    """Plays the chapters in order on a stage and writes the account."""

    def __init__(self, stage: Stage, account: Account) -> None:
        self.stage = stage
        self.account = account
        self.relay: Relay | None = None
        self.agents: dict[str, subprocess.Popen[bytes]] = {}

    def play(self) -> None:
        """Play every chapter; a broken promise ends it."""
        self.open_the_registry()
        self.enrol_the_devices()
        self.first_version()
        self.good_version()
        self.failing_version()
        self.degrading_version()
        self.roll_one_back()
        self.sum_up()

    # --- chapters ------------------------------------------------------------------------

    def open_the_registry(self) -> None:
        say = self.account
        say.chapter("The registry opens, the keys are made")
        self.stage.run(
            "pilotwave-server",
            "init",
            "--data",
            "data",
            "--fleet",
            "demo",
            "--token-file",
            "admin.token",
        )
        self.stage.start_server()
        say.say(f"server on {self.stage.url}, SQLite in {self.stage.root}")
        self.stage.pilotwave("keys", "init", "--dir", "keys", "--plain")
        self.stage.pilotwave("models", "create", MODEL, "--publisher", "keys/publisher.pem")
        publisher = (self.stage.root / "keys" / "publisher.pem").read_bytes()
        on_server = [
            p
            for p in (self.stage.root / "data").rglob("*")
            if p.is_file() and publisher.splitlines()[1] in p.read_bytes()
        ]
        say.promise("the publisher's key never came to the server", not on_server, on_server)

    def enrol_the_devices(self) -> None:
        self.account.chapter("Six devices enrol with one-time codes and start")
        self.relay = Relay(self.stage.url)
        made = self.stage.ask(
            "codes", "create", "--count", str(len(DEVICES)), "--label", "site=demo"
        )
        codes = [item["code"] for item in (made["items"] if isinstance(made, dict) else made)]
        for device, code in zip(DEVICES, codes, strict=True):
            url = self.relay.url if device == BEHIND_RELAY else self.stage.url
            self.stage.run(
                "pilotwave-agent",
                "enrol",
                "--server",
                url,
                "--name",
                device,
                "--code",
                code,
                "--root",
                "keys/root.json",
                "--data",
                device,
            )
            config = self.stage.root / device / "agent.toml"
            config.write_text(config.read_text() + "\nprobation_s = 2\n")
            words = ("pilotwave-agent", "run", "--data", device)
            self.agents[device] = self.stage.start(device, *words)
        self.stage.pilotwave("groups", "create", "everyone", "--selector", "site=demo")
        used = self.stage.run(
            "pilotwave-agent",
            "enrol",
            "--server",
            self.stage.url,
            "--name",
            "stranger",
            "--code",
            codes[0],
            "--root",
            "keys/root.json",
            "--data",
            "stranger",
            check=False,
        )
        enrolled = {d["name"] for d in self.devices()}
        self.account.promise("a code works once", "stranger" not in enrolled, used)

    def publish(self, version: str) -> None:
        """Publish one of the example's models under a version of the demo's."""
        self.stage.pilotwave(
            "publish",
            MODEL,
            version,
            "--variant",
            f"onnx-fp32={DIGITS / FILES[version]}",
            "--key",
            "keys/publisher.pem",
            "--no-try",  # the bad ones are to fail on devices here
        )
        self.account.say(f"{MODEL} {version} signed and published")

    def first_version(self) -> None:
        self.account.chapter(f"{MODEL} 1.0.0 is published and assigned to everyone")
        self.publish("1.0.0")
        self.stage.pilotwave("assign", "--yes", MODEL, "1.0.0", "--group", "everyone")
        self.everyone_runs("1.0.0", DEVICES)
        folders = [str(self.stage.root / device) for device in DEVICES]
        self.stage.start_python("app", "demo.app", *folders)
        self.account.say("on each device an application begins to use it")

    def everyone_runs(self, version: str, devices: list[str]) -> None:
        started = time.monotonic()
        for device in devices:
            self.account.wait(
                f"{device} runs {version}, tested and healthy",
                lambda device=device: self.runs(device, version),  # type: ignore[misc]
            )
            self.account.promise(
                f"{device}'s file is the published one, byte for byte",
                self.digest(device) == self.published_digest(version),
                self.digest(device),
            )
        took = round(time.monotonic() - started, 2)
        self.account.figures[f"swap_{version}_s"] = took

    def roll_out(self, version: str) -> str:
        """Publish a version and start its rollout; return the rollout's name."""
        self.publish(version)
        words = ("rollouts", "create", MODEL, version, "--group", "everyone")
        made = self.stage.ask(*words, "--policy-file", "policy.yaml", "--start")
        told = f"{', '.join(SHADOWS)} try it in shadow; then two take it, then all"
        self.account.say(f"rollout {made['id']}: {told}")
        return str(made["id"])

    def good_version(self) -> None:
        assert self.relay is not None
        self.account.chapter(f"{MODEL} 1.1.0 goes out in waves, behind a relay that tampers")
        (self.stage.root / "policy.yaml").write_text(POLICY)
        self.relay.tampering = True
        rollout = self.roll_out("1.1.0")
        self.account.wait(
            "tried in shadow it is as good or better: the canaries take it",
            lambda: self.decided(rollout, "open_wave", wave=1),
        )
        self.everyone_runs("1.1.0", CANARIES)
        self.account.promise(
            "until the canaries have proved it, nobody else runs it",
            self.show(rollout)["wave"] > 1 or self.who_runs("1.1.0") <= set(CANARIES),
            self.who_runs("1.1.0"),
        )
        self.account.wait(
            "the canaries are well, in use too: the next wave opens",
            lambda: self.decided(rollout, "open_wave", wave=2),
        )
        self.everyone_runs("1.1.0", [d for d in DEVICES if d not in (*CANARIES, BEHIND_RELAY)])
        self.tampered_update()
        self.account.wait(
            "the rollout completes: 1.1.0 is what the group runs",
            lambda: self.in_state(rollout, "completed"),
        )
        self.account.say(self.show(rollout)["reason"])

    def tampered_update(self) -> None:
        assert self.relay is not None
        report = self.account.wait(
            f"{BEHIND_RELAY} refuses the tampered blob and says why",
            lambda: self.report_with(BEHIND_RELAY, "blob_mismatch"),
        )
        self.account.say(f"its words: {report['detail']}")
        self.account.promise(
            f"{BEHIND_RELAY} goes on with 1.0.0, untouched",
            self.digest(BEHIND_RELAY) == self.published_digest("1.0.0"),
        )
        self.account.figures["tampered_blobs_refused"] = self.relay.tampered
        self.relay.tampering = False
        self.account.say("the relay stops tampering")
        self.everyone_runs("1.1.0", [BEHIND_RELAY])

    def failing_version(self) -> None:
        self.account.chapter("1.1.1 is wrong on part of its golden inputs")
        rollout = self.roll_out("1.1.1")
        report = self.account.wait(
            "a device of the shadow finds 1.1.1 wrong and stays on 1.1.0",
            lambda: self.found_wrong(rollout),
        )
        self.account.say(f"in its words: {report['detail']}")
        self.rolled_back(rollout)
        self.account.promise(
            "every device still serves the bytes of 1.1.0",
            all(self.digest(d) == self.published_digest("1.1.0") for d in DEVICES),
        )

    def found_wrong(self, rollout: str) -> dict[str, Any] | None:
        """Return what a device said of the version; it stays said when the rollout is over."""
        rows = self.stage.ask("rollouts", "devices", rollout)
        return next((row for row in rows if row["reason"] == "selftest_mismatch"), None)

    def degrading_version(self) -> None:
        self.account.chapter("1.2.0 passes its self-test, but is worse on what cameras see")
        self.agents[OFFLINE].terminate()
        self.account.say(f"{OFFLINE} goes offline")
        rollout = self.roll_out("1.2.0")
        started = time.monotonic()
        found = self.rolled_back(rollout)
        self.account.figures["degradation_found_s"] = round(time.monotonic() - started, 2)
        self.account.say(f"the verdict: {found['failure']['sentence']}")
        self.account.promise("it was found in the shadow wave", found["failure"]["wave"] == 0)
        for device in SHADOWS:
            self.account.wait(
                f"{device} has forgotten it and goes on with 1.1.0",
                lambda d=device: self.runs(d, "1.1.0"),  # type: ignore[misc]
            )
        self.nobody_met_it(rollout)
        self.agents[OFFLINE] = self.stage.start(
            OFFLINE, "pilotwave-agent", "run", "--data", OFFLINE
        )
        before = self.seen(OFFLINE)
        self.account.wait(f"{OFFLINE} is back online", lambda: self.seen(OFFLINE) != before or None)
        self.account.promise(
            "it was never given 1.2.0, and keeps 1.1.0",
            self.digest(OFFLINE) == self.published_digest("1.1.0")
            and self.runs(OFFLINE, "1.1.0") is not None,
        )
        print(self.stage.pilotwave("rollouts", "show", rollout), flush=True)

    def nobody_met_it(self, rollout: str) -> None:
        """Promise that no device switched to the version and no application had an answer of it."""
        ran = [
            d["device"] for d in self.stage.ask("rollouts", "devices", rollout) if d["switched_at"]
        ]
        self.account.promise("no device ever switched to it", not ran, ran)
        answered = (self.stage.root / "app.log").read_text().splitlines()
        met = [line for line in answered if line.endswith(" 1.2.0")]
        self.account.promise("no application had an answer of it", bool(answered) and not met, met)
        self.account.figures["answers_of_1.2.0"] = len(met)

    def rolled_back(self, rollout: str) -> dict[str, Any]:
        """Wait until a rollout has gone back by itself."""
        found = self.account.wait(
            f"{rollout} goes back by itself", lambda: self.in_state(rollout, "rolled_back")
        )
        self.account.say(found["reason"])
        return found

    def roll_one_back(self) -> None:
        device = DEVICES[0]
        self.account.chapter(f"An operator rolls {device} back")
        started = time.monotonic()
        self.stage.pilotwave(
            "devices",
            "rollback",
            device,
            "--model",
            MODEL,
            "--reason",
            "blurred pictures since the update",
        )
        self.account.wait(f"{device} runs 1.0.0 again", lambda: self.runs(device, "1.0.0"))
        self.account.figures["rollback_s"] = round(time.monotonic() - started, 2)
        self.account.promise(
            "the five others stay on 1.1.0",
            all(self.digest(d) == self.published_digest("1.1.0") for d in DEVICES[1:]),
        )
        self.account.say(self.stage.pilotwave("devices", "why", device, "--model", MODEL).strip())
        self.stage.pilotwave("devices", "unpin", device, "--model", MODEL)
        self.account.wait(f"unpinned, {device} follows again", lambda: self.runs(device, "1.1.0"))

    def sum_up(self) -> None:
        self.account.chapter("How the fleet stands")
        print(self.stage.pilotwave("devices", "list"), flush=True)
        print(self.stage.pilotwave("rollouts", "list"), flush=True)
        self.account.figures["devices"] = len(DEVICES)
        took = time.monotonic() - self.account.started
        self.account.figures["total_s"] = round(took, 1)

    # --- looking -------------------------------------------------------------------------

    def devices(self) -> list[dict[str, Any]]:
        """Return every device as the API shows it."""
        answer = self.stage.ask("devices", "list")
        items: list[dict[str, Any]] = answer["items"] if isinstance(answer, dict) else answer
        return items

    def model(self, device: str) -> dict[str, Any] | None:
        """Return what the registry knows of the demo's model on a device."""
        detail = self.stage.ask("devices", "show", device)
        return next((m for m in detail["models"] if m["model"] == MODEL), None)

    def runs(self, device: str, version: str) -> dict[str, Any] | None:
        """Return the device's report if it runs a version and found it healthy."""
        found = self.model(device)
        at_rest = found and found["state"] == "healthy" and found["current_version"] == version
        return found if at_rest else None

    def report_with(self, device: str, reason: str) -> dict[str, Any] | None:
        """Return the device's report if it gives this reason."""
        found = self.model(device)
        return found if found and found["reason"] == reason else None

    def seen(self, device: str) -> str:
        """Return when the device checked in last."""
        return str(self.stage.ask("devices", "show", device)["last_check_in"])

    def show(self, rollout: str) -> dict[str, Any]:
        """Return a rollout as the API shows it."""
        found: dict[str, Any] = self.stage.ask("rollouts", "show", rollout)
        return found

    def in_state(self, rollout: str, state: str) -> dict[str, Any] | None:
        """Return the rollout if it is in this state."""
        found = self.show(rollout)
        return found if found["state"] == state else None

    def decided(self, rollout: str, action: str, *, wave: int) -> dict[str, Any] | None:
        """Return the decision of that kind about that wave, once it was taken."""
        found = self.stage.ask("rollouts", "decisions", rollout)
        return next((d for d in found if (d["action"], d["wave"]) == (action, wave)), None)

    def who_runs(self, version: str) -> set[str]:
        """Return the devices on whose disks the version is current."""
        wanted = self.published_digest(version)
        return {device for device in DEVICES if self.digest(device) == wanted}

    def digest(self, device: str) -> str:
        """Return the digest of the model file that an application on the device would open."""
        path = self.stage.root / device / "models" / MODEL / "current" / "model.onnx"
        return hashlib.sha256(path.read_bytes()).hexdigest()

    def published_digest(self, version: str) -> str:
        """Return the digest of the file that was published."""
        return hashlib.sha256((DIGITS / FILES[version] / "model.onnx").read_bytes()).hexdigest()


def folder_of(root: Path) -> str:
    """Return a folder as a person would type it."""
    home = os.path.expanduser("~")
    return str(root).replace(home, "~", 1) if str(root).startswith(home + "/") else str(root)
