"""A client that a generator made of the API's document works with a real server and agent."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pilotwave_protocol import dsse
from pilotwave_protocol.messages.enrol import ENROL_TYPE, Enrol
from tests.e2e.fleet_of_one import FleetOfOne, fleet_of_one

REPO = Path(__file__).parent.parent.parent
# in an environment of its own: it wants other versions of what our tools use
TOOLS = REPO / ".venv-client" / "bin"
pytestmark = [pytest.mark.timeout(600), pytest.mark.slow]

DIGITS = REPO / "examples" / "digits"
MODEL = "detector"
PACKAGE = "made"
# the generator knows JSON and plain text, not lines of JSON
LEFT_OUT = ["GET /api/v1/events/export"]


class Client:
    """The generated package, at work in the generator's Python."""

    def __init__(self, child: subprocess.Popen[str]) -> None:
        self._child = child

    def __call__(self, operation: str, *path: str, **asked: Any) -> Any:
        """Call an operation (`models.list_versions`); its answer by the document's model."""
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        line = json.dumps({"operation": operation, "path": path, **asked})
        self._child.stdin.write(line + "\n")
        self._child.stdin.flush()
        said = self._child.stdout.readline()
        assert said, f"{line}: {self._child.stderr.read() if self._child.stderr else ''}"
        return json.loads(said)


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[FleetOfOne]:
    with fleet_of_one(tmp_path) as found:
        found.stage.pilotwave("models", "create", MODEL, "--publisher", "keys/publisher.pem")
        for version in ("1.0.0", "1.1.0"):
            found.publish(MODEL, version, DIGITS / version)
            found.assign(MODEL, version)
            found.until(MODEL, version, "healthy")
        yield found


@pytest.fixture
def document(fleet: FleetOfOne) -> bytes:
    return (
        httpx.get(f"{fleet.stage.url}/api/v1/openapi.json", timeout=60).raise_for_status().content
    )


@pytest.fixture
def client(fleet: FleetOfOne, document: bytes) -> Iterator[Client]:
    root = fleet.stage.root
    (root / "openapi.json").write_bytes(document)
    words = ["generate", "--meta", "none", "--path", "openapi.json", "--output-path", PACKAGE]
    done = subprocess.run(
        [TOOLS / "openapi-python-client", *words],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=240,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    unread = [line for line in said.splitlines() if " parsing " in line]
    assert [line.split(" parsing ")[1].split(" within")[0] for line in unread] == LEFT_OUT
    script = Path(__file__).with_name("generated_client.py")
    token = (root / "admin.token").read_text().strip()
    with subprocess.Popen(
        [TOOLS / "python", script, PACKAGE, fleet.stage.url, token],
        cwd=root,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        yield Client(child)


def test_a_generated_client_enrols_reads_and_rolls_back(
    fleet: FleetOfOne, client: Client, document: bytes
) -> None:
    operations = [
        f"{operation['tags'][0]}.{operation['operationId']}"
        for path in json.loads(document)["paths"].values()
        for operation in path.values()
    ]
    assert len(operations) > 100
    for name in operations:
        assert client(name, only_look=True)

    # a device enrols
    key = Ed25519PrivateKey.generate()
    (made,) = client("devices.make_codes", body=["CodesRequest", {}])["items"]
    public = dsse.raw_public(key.public_key()).hex()
    request = Enrol("by-generated-client", public, made["code"], {})
    envelope = json.loads(dsse.sign(ENROL_TYPE, request.to_bytes(), key))
    joined = client("device.ask_to_join", body=["AskToJoinBody", envelope])
    assert joined["state"] == "enrolled"
    names = {device["name"] for device in client("devices.list_devices")["items"]}
    assert names == {"board", "by-generated-client"}

    # what a publisher reads
    versions = [item["version"] for item in client("models.list_versions", MODEL)["items"]]
    assert sorted(versions) == ["1.0.0", "1.1.0"]
    variants = client("models.get_version", MODEL, "1.1.0")["variants"]
    files = [file for variant in variants for file in variant["files"]]
    blobs = [{"sha256": file["sha256"], "size": file["size"]} for file in files]
    blobs.append({"sha256": "0" * 64, "size": 3})
    missing = client("blobs.missing", body=["MissingRequest", {"blobs": blobs}])["missing"]
    assert [blob["sha256"] for blob in missing] == ["0" * 64]

    # an operator sends the device back
    reason = ["RollBackRequest", {"reason": "tried by a generated client"}]
    sent_back = client("devices.roll_back_device", "board", MODEL, body=reason)
    assert sent_back["version"] == "1.0.0"
    fleet.until(MODEL, "1.0.0", "healthy")
    (slot,) = client("devices.get_device", "board")["models"]
    assert (slot["model"], slot["current_version"]) == (MODEL, "1.0.0")
