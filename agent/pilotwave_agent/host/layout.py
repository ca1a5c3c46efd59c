"""Where things lie in the data folder, and which version each model's links name.

`models/<model>/current` is a symbolic link to `versions/<version>-<sha8>-<variant>`, so that the
switch is one rename. An application opens files under `current`, or reads the link once and opens
files under what it names. What the links should name is decided in the journal.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pilotwave_agent.host.disk import Disk
from pilotwave_protocol.messages.check_in import Installed
from pilotwave_protocol.names import AGENT_MODEL


@dataclass(frozen=True)
class Layout:
    """The data folder's map."""

    root: Path

    @property
    def key(self) -> Path:
        """The device's private key (PKCS 8, mode 0600)."""
        return self.root / "identity" / "device.key"

    @property
    def authorities(self) -> Path:
        """Whose certificates are believed, where `enrol` was told of a file."""
        return self.root / "server-ca.pem"

    @property
    def pinned_root(self) -> Path:
        """The TUF root that this device was enrolled with."""
        return self.root / "identity" / "root.json"

    @property
    def enrolled(self) -> Path:
        """What the server answered to the enrolment."""
        return self.root / "identity" / "enrolled.json"

    @property
    def seq(self) -> Path:
        """How far check-in numbers are reserved."""
        return self.root / "identity" / "seq.json"

    @property
    def machine(self) -> Path:
        """Which machine the identity was made on."""
        return self.root / "identity" / "machine.json"

    @property
    def journal(self) -> Path:
        """The journal file."""
        return self.root / "journal" / "log"

    @property
    def mirrors(self) -> Path:
        """How mirrors are, and which are left alone until when."""
        return self.root / "mirrors" / "health.json"

    @property
    def inbox(self) -> Path:
        """The newest directive as it came, unverified."""
        return self.root / "inbox" / "directive.json"

    @property
    def traces(self) -> Path:
        """Which trace each model's order belongs to."""
        return self.root / "inbox" / "traces.json"

    @property
    def tuf(self) -> Path:
        """TUF's cache."""
        return self.root / "tuf"

    @property
    def trust_memory(self) -> Path:
        """What this device remembers of TUF, beside its cache."""
        return self.root / "trust" / "tuf.json"

    @property
    def blobs(self) -> Path:
        """Files by their digest."""
        return self.root / "blobs"

    @property
    def models(self) -> Path:
        """A folder per model."""
        return self.root / "models"

    @property
    def confinement(self) -> Path:
        """How confined the last self-test was, in words."""
        return self.root / "confinement"

    @property
    def said_facts(self) -> Path:
        """What the program that says facts last printed."""
        return self.root / "said-facts.json"

    @property
    def live(self) -> Path:
        """Where applications say how they are: a folder per model."""
        return self.root / "live"

    @property
    def telemetry(self) -> Path:
        """What applications measured and the server has not acknowledged."""
        return self.root / "telemetry" / "spool.json"

    @property
    def drift(self) -> Path:
        """What speaks for drift of each model's inputs, and the alarms that wait."""
        return self.root / "telemetry" / "drift.json"

    @property
    def capture_rules(self) -> Path:
        """Which inputs applications capture, where the owner wants any."""
        return self.live / "capture.json"

    @property
    def tier_rules(self) -> Path:
        """Where inputs may go for a bigger model's answer, where the owner allows any to."""
        return self.live / "tiers.json"

    @property
    def drifting(self) -> Path:
        """Which models' inputs drift, where the owner wants such inputs captured."""
        return self.live / "drift.json"

    @property
    def captures(self) -> Path:
        """Captured cases that wait for the server."""
        return self.root / "captures"

    @property
    def captures_sent(self) -> Path:
        """How many bytes of cases were sent today."""
        return self.captures / "sent.json"

    @property
    def label_rules(self) -> Path:
        """That applications may keep labelled examples, where the owner allows learning."""
        return self.live / "learn.json"

    @property
    def all_examples(self) -> Path:
        """Labelled examples, a folder per model."""
        return self.root / "learning" / "examples"

    def examples(self, model: str) -> Path:
        """A model's labelled examples."""
        return self.all_examples / model

    @property
    def updates(self) -> Path:
        """What was answered to each plan, by the plan's digest."""
        return self.root / "learning" / "updates"

    @property
    def signed_plans(self) -> Path:
        """Which training plans publishers stand by."""
        return self.root / "learning" / "plans.json"

    @property
    def plans(self) -> Path:
        """Training plans by their digest."""
        return self.root / "learning" / "plans"

    @property
    def all_adapting(self) -> Path:
        """How the adapting of each model stands."""
        return self.root / "learning" / "adapting"

    def adapting(self, model: str) -> Path:
        """How the adapting of a model stands."""
        return self.all_adapting / f"{model}.json"

    def overlay(self, model: str) -> Path:
        """The link to what this device adds to a version's scores."""
        return self.models / model / "overlay"

    def overlays(self, model: str) -> Path:
        """The folder of what that link names."""
        return self.models / model / "overlays"

    @property
    def trial(self) -> Path:
        """How the trial of a new agent goes (`self_update.launch`)."""
        return self.root / "agent" / "trial.json"

    @property
    def programs(self) -> Path:
        """What was built here of the agent's own versions: a folder per version's folder."""
        return self.models / AGENT_MODEL / "programs"

    @property
    def status(self) -> Path:
        """The last state, for people and scripts."""
        return self.root / "status.json"

    @property
    def log(self) -> Path:
        """The last lines of the log, where somebody may read them from afar."""
        return self.root / "agent.log"

    @property
    def run_lock(self) -> Path:
        """Held by the resident agent."""
        return self.root / "run.lock"

    @property
    def work_lock(self) -> Path:
        """Held by the process that changes the journal; it holds that process's id."""
        return self.root / "work.lock"

    def versions(self, model: str) -> Path:
        """The folder of a model's version folders."""
        return self.models / model / "versions"

    def abouts(self, model: str) -> Path:
        """The folder of what applications must know of each version."""
        return self.models / model / "about"

    def about(self, model: str, version: Installed) -> Path:
        """What applications must know of one version's variant."""
        return self.abouts(model) / f"{folder_name(version)}.json"

    def version(self, model: str, version: Installed) -> Path:
        """The folder of one version's variant."""
        return self.versions(model) / folder_name(version)


def folder_name(version: Installed) -> str:
    """Return a version folder's name: one for each manifest and variant."""
    return f"{version.version}-{version.sha256[:8]}-{version.variant}"


def point(disk: Disk, layout: Layout, model: str, link: str, version: Installed | None) -> None:
    """Make a model's link (`current`, `previous`, `shadow`) name a version; None removes it."""
    path = layout.models / model / link
    if version is None:
        if disk.read_link(path) is not None:
            disk.unlink(path)
            disk.sync_dir(path.parent)
        return
    disk.point(path, f"versions/{folder_name(version)}")


def named_by(disk: Disk, layout: Layout, model: str, link: str) -> str | None:
    """Return the version folder's name that a link names."""
    target = disk.read_link(layout.models / model / link)
    return target.rpartition("/")[2] if target else None
