"""The demo's story, in chapters, each with the promises it has to keep.

Six real agents, one server, real keys, signatures, models and runtimes. Device `cam-6` sits behind
a relay that tampers with blobs for a while.
"""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path
from typing import Any

from demo.account import Account
from demo.relay import Relay
from demo.stage import REPO, Stage

DEVICES = [f"cam-{n}" for n in range(1, 7)]
BEHIND_RELAY = "cam-6"
MODEL = "detector"
DIGITS = REPO / "examples" / "digits"


class Story:
    """Plays the chapters in order on a stage and writes the account."""

    def __init__(self, stage: Stage, account: Account) -> None:
        self.stage = stage
        self.account = account
        self.relay: Relay | None = None

    def play(self) -> None:
        """Play every chapter; a broken promise ends it."""
        self.open_the_registry()
        self.enrol_the_devices()
        self.publish_and_assign("1.0.0")
        self.everyone_runs("1.0.0")
        self.tampered_update()
        self.failing_version()
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
            self.stage.start(device, "pilotwave-agent", "run", "--data", device)
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

    def publish_and_assign(self, version: str) -> float:
        self.account.chapter(f"{MODEL} {version} is published and assigned to everyone")
        self.stage.pilotwave(
            "publish",
            MODEL,
            version,
            "--variant",
            f"onnx-fp32={DIGITS / version}",
            "--key",
            "keys/publisher.pem",
        )
        self.account.say(f"{MODEL} {version} signed and published")
        self.stage.pilotwave("assign", MODEL, version, "--group", "everyone")
        return time.monotonic()

    def everyone_runs(self, version: str, devices: list[str] | None = None) -> None:
        started = time.monotonic()
        for device in devices or DEVICES:
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

    def tampered_update(self) -> None:
        assert self.relay is not None
        self.relay.tampering = True
        self.publish_and_assign("1.1.0")
        others = [d for d in DEVICES if d != BEHIND_RELAY]
        self.everyone_runs("1.1.0", others)
        self.account.chapter(f"{BEHIND_RELAY} receives a tampered blob")
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
        self.publish_and_assign("1.2.0")
        self.account.chapter("1.2.0 is wrong on part of its golden inputs")
        for device in DEVICES:
            report = self.account.wait(
                f"{device} finds 1.2.0 wrong and stays on 1.1.0",
                lambda device=device: self.report_with(device, "selftest_mismatch"),  # type: ignore[misc]
            )
            self.account.promise(
                f"{device} still serves the bytes of 1.1.0",
                self.digest(device) == self.published_digest("1.1.0"),
            )
        self.account.say(f"in the words of {DEVICES[-1]}: {report['detail']}")
        self.account.figures["selftests_failed"] = len(DEVICES)
        self.stage.pilotwave("assign", MODEL, "1.1.0", "--group", "everyone")

    def roll_one_back(self) -> None:
        device = DEVICES[0]
        self.account.chapter(f"An operator rolls {device} back")
        self.account.wait(f"{device} is at rest on 1.1.0", lambda: self.runs(device, "1.1.0"))
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

    def digest(self, device: str) -> str:
        """Return the digest of the model file that an application on the device would open."""
        path = self.stage.root / device / "models" / MODEL / "current" / "model.onnx"
        return hashlib.sha256(path.read_bytes()).hexdigest()

    def published_digest(self, version: str) -> str:
        """Return the digest of the file that was published."""
        return hashlib.sha256((DIGITS / version / "model.onnx").read_bytes()).hexdigest()


def folder_of(root: Path) -> str:
    """Return a folder as a person would type it."""
    home = os.path.expanduser("~")
    return str(root).replace(home, "~", 1) if str(root).startswith(home + "/") else str(root)
