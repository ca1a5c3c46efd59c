from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import httpx
import pytest
from securesystemslib.signer import Key
from tuf.api.metadata import Metadata

from pilotwave_protocol import signing
from pilotwave_protocol.digest import sha256_hex
from pilotwave_protocol.manifest import VersionManifest
from pilotwave_server.context import Context
from pilotwave_server.registry.trust import TrustStore
from tests.server.registry.offline import Offline, manifest_for
from tests.server.registry.registry import onnx

sqlite_only = pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
TRUST = "/api/v1/trust"


class Remote:
    """The offline people at work over HTTP."""

    def __init__(self, admin: httpx.Client, publisher: httpx.Client, clock: Any) -> None:
        self.admin = admin
        self.publisher = publisher
        self.offline = Offline("test-fleet", clock)

    def fetch(self, role: str) -> Metadata[Any]:
        return Metadata.from_bytes(self.admin.get(f"{TRUST}/metadata/{role}").content)

    def bootstrap(self) -> httpx.Response:
        keys = self.admin.get(f"{TRUST}/server-keys").json()
        [online], [director] = keys["online"], keys["director"]
        assert keys["fleet"] == "test-fleet"
        key = Key.from_dict(online["keyid"], dict(online["key"]))
        documents = {
            "root": self.offline.first_root([key]).to_dict(),
            "targets": self.offline.first_targets([director["public"]]).to_dict(),
        }
        return self.admin.post(f"{TRUST}/bootstrap", json=documents)

    def create_model(self, model: str) -> httpx.Response:
        targets, role = self.offline.delegated(self.fetch("targets"), model)
        body = {"targets": targets.to_dict(), "roles": {f"models-{model}": role.to_dict()}}
        return self.admin.post(f"{TRUST}/targets", json=body)

    def upload(self, data: bytes) -> None:
        headers = {"Upload-Offset": "0", "Upload-Length": str(len(data))}
        url = f"/api/v1/blobs/{sha256_hex(data)}/upload"
        assert self.publisher.patch(url, content=data, headers=headers).json()["complete"]

    def prepare(self, model: str, version: str) -> tuple[dict[str, Any], VersionManifest]:
        data = onnx(f"{model} {version}")
        self.upload(data)
        role = self.fetch(f"models-{model}")
        counter = signing.next_counter(role.signed)
        manifest = manifest_for(model, version, counter, {"model.onnx": data})
        signed = signing.sign(
            self.offline.with_version(role, manifest), [self.offline.publishers[model]]
        )
        return {"role": signed.to_dict(), "manifest": b64(manifest.to_bytes())}, manifest

    def publish(self, model: str, version: str) -> httpx.Response:
        body, _ = self.prepare(model, version)
        return self.publisher.post(f"/api/v1/models/{model}/metadata", json=body)


def b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


@pytest.fixture
def remote(admin: httpx.Client, publisher: httpx.Client, clock: Any) -> Remote:
    return Remote(admin, publisher, clock)


@pytest.fixture
def ready(remote: Remote) -> Remote:
    assert remote.bootstrap().status_code == 201
    assert remote.create_model("detector").status_code == 201
    return remote


def test_from_the_first_key_to_a_version_that_can_be_read(
    remote: Remote, viewer: httpx.Client, client: httpx.Client
) -> None:
    done = remote.bootstrap()
    assert done.json() == {
        "root": 1,
        "targets": 1,
        "snapshot": 1,
        "timestamp": 1,
        "repeated": False,
    }
    assert remote.bootstrap().json()["repeated"] is True
    assert remote.create_model("detector").json()["targets"] == 2
    published = remote.publish("detector", "1.0.0")
    assert published.status_code == 201
    assert published.json()["published"] == ["1.0.0"]

    [model] = viewer.get("/api/v1/models").json()["items"]
    assert (model["name"], model["latest"], model["versions"]) == ("detector", "1.0.0", 1)
    assert viewer.get("/api/v1/models/detector").json() == model
    [summary] = viewer.get("/api/v1/models/detector/versions").json()["items"]
    assert (summary["version"], summary["variants"]) == ("1.0.0", ["onnx-fp32"])
    version = viewer.get("/api/v1/models/detector/versions/1.0.0").json()
    [variant] = version["variants"]
    assert variant["files"][0]["path"] == "model.onnx"
    assert version["signers"] == [remote.offline.publishers["detector"].public_key.keyid]

    timestamp = client.get("/tuf/metadata/timestamp.json")
    assert timestamp.headers["cache-control"] == "no-cache"
    assert timestamp.json()["signed"]["version"] == 3
    role = client.get("/tuf/metadata/2.models-detector.json")
    assert "immutable" in role.headers["cache-control"]
    manifest = client.get(f"/tuf/targets/models/detector/{version['sha256']}.1.0.0.json")
    assert "immutable" in manifest.headers["cache-control"]
    assert sha256_hex(manifest.content) == version["sha256"]
    keys = viewer.get(f"{TRUST}/server-keys").json()
    assert [key["trusted"] for key in [*keys["online"], *keys["director"]]] == [True, True]


@sqlite_only
def test_a_clash_tells_the_current_version(ready: Remote) -> None:
    late, _ = ready.prepare("detector", "1.0.1")
    ready.publish("detector", "1.0.0")
    answer = ready.publisher.post("/api/v1/models/detector/metadata", json=late)
    assert answer.status_code == 409
    assert answer.json()["code"] == "version_clash"
    assert answer.json()["current"] == 2


@sqlite_only
def test_handing_in_twice_is_no_error(ready: Remote) -> None:
    body, _ = ready.prepare("detector", "1.0.0")
    answers = [ready.publisher.post("/api/v1/models/detector/metadata", json=body) for _ in "ab"]
    assert [a.status_code for a in answers] == [201, 200]
    assert answers[1].json()["repeated"] is True


@sqlite_only
def test_a_manifest_may_come_as_a_blob(ready: Remote) -> None:
    body, manifest = ready.prepare("detector", "1.0.0")
    ready.upload(manifest.to_bytes())
    del body["manifest"]
    answer = ready.publisher.post("/api/v1/models/detector/metadata", json=body)
    assert answer.json()["published"] == ["1.0.0"]


@sqlite_only
def test_a_large_manifest_goes_through(ready: Remote) -> None:
    data = onnx("large")
    ready.upload(data)
    role = ready.fetch("models-detector")
    files = {"model.onnx": data} | {f"folder/copy-{n:04}.onnx": data for n in range(1000)}
    manifest = manifest_for("detector", "1.0.0", 1, files)
    assert len(manifest.to_bytes()) > 100_000
    signed = signing.sign(
        ready.offline.with_version(role, manifest), [ready.offline.publishers["detector"]]
    )
    body = {"role": signed.to_dict(), "manifest": b64(manifest.to_bytes())}
    answer = ready.publisher.post("/api/v1/models/detector/metadata", json=body)
    assert answer.status_code == 201, answer.text


@sqlite_only
def test_a_deny_and_its_end(ready: Remote, operator: httpx.Client) -> None:
    ready.publish("detector", "1.0.0")
    url = "/api/v1/models/detector/versions/1.0.0/deny"
    denied = operator.post(url, json={"reason": "smells"}).json()["denied"]
    assert (denied["reason"], denied["by"]) == ("smells", "token/test-operator")
    assert operator.get("/api/v1/models/detector").json()["latest"] is None
    assert operator.delete(url).json()["denied"] is None
    assert operator.post(url, json={"reason": " "}).status_code == 422
    assert operator.post(url.replace("1.0.0", "9.9"), json={"reason": "x"}).status_code == 404


@sqlite_only
def test_keys_are_staged_over_http(ready: Remote) -> None:
    online = ready.admin.post(f"{TRUST}/online-key").json()
    director = ready.admin.post(f"{TRUST}/director-key").json()
    assert (online["number"], online["trusted"]) == (2, False)
    assert (director["number"], director["trusted"]) == (2, False)
    assert ready.admin.post(f"{TRUST}/online-key").json() == online
    key = Key.from_dict(online["keyid"], dict(online["key"]))
    root = ready.offline.next_root(ready.fetch("root"), [key])
    signing.sign(root, ready.offline.root_keys[:2])
    done = ready.admin.post(f"{TRUST}/root", json={"root": root.to_dict()})
    assert (done.status_code, done.json()["root"]) == (201, 2)
    served = ready.admin.get("/tuf/metadata/2.root.json").json()
    assert served["signed"]["roles"]["timestamp"]["keyids"] == [online["keyid"]]


@sqlite_only
def test_who_may_do_what(
    ready: Remote, viewer: httpx.Client, operator: httpx.Client, client: httpx.Client
) -> None:
    body, _ = ready.prepare("detector", "1.0.0")
    publish = "/api/v1/models/detector/metadata"
    deny = "/api/v1/models/detector/versions/1.0.0/deny"
    for who in (viewer, operator):
        assert who.post(publish, json=body).status_code == 403
    for who in (viewer, ready.publisher):
        assert who.post(deny, json={"reason": "x"}).status_code == 403
    for who in (viewer, operator, ready.publisher):
        for path in ("bootstrap", "root", "targets"):
            assert who.post(f"{TRUST}/{path}", json={}).status_code == 403, path
        for path in ("online-key", "director-key"):
            assert who.post(f"{TRUST}/{path}").status_code == 403, path
    assert client.get("/api/v1/models").status_code == 401


@sqlite_only
@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/api/v1/models/nothing", None),
        ("GET", "/api/v1/models/UPPER", None),
        ("GET", "/api/v1/models/a%2Fb", None),
        ("GET", "/api/v1/models/detector/versions/not a version", None),
        ("GET", f"{TRUST}/metadata/nothing", None),
        ("GET", f"{TRUST}/metadata/root?version=0", None),
        ("GET", f"{TRUST}/metadata/root?version=99999999999999999999", None),
        ("POST", "/api/v1/models/detector/metadata", {}),
        ("POST", "/api/v1/models/detector/metadata", {"role": 5}),
        ("POST", "/api/v1/models/detector/metadata", {"role": {"signed": {}}}),
        ("POST", "/api/v1/models/detector/metadata", {"role": {"signed": 1, "signatures": 2}}),
        ("POST", "/api/v1/models/detector/metadata", {"role": {}, "manifest": "%%%"}),
        ("POST", "/api/v1/models/detector/metadata", {"role": {}, "more": 1}),
        ("POST", f"{TRUST}/bootstrap", {"root": {}, "targets": {}}),
        ("POST", f"{TRUST}/targets", {"targets": {}, "roles": {"models-../x": {}}}),
        ("POST", f"{TRUST}/root", {"root": {"signed": {"_type": "root"}, "signatures": []}}),
        ("GET", "/tuf/metadata/../../keys/online-1.pem", None),
        ("GET", "/tuf/metadata/..%2f..%2fkeys%2fonline-1.pem", None),
        ("GET", "/tuf/metadata/.lock", None),
        ("GET", "/tuf/targets/../../keys/online-1.pem", None),
        ("GET", "/tuf/targets/models/detector/1.0.0.json", None),
    ],
)
def test_bad_requests_get_a_sentence(
    admin: httpx.Client, method: str, path: str, body: Any
) -> None:
    answer = admin.request(method, path, json=body)
    assert answer.status_code in (404, 422), answer.text
    assert answer.json()["detail"]
    assert answer.json()["code"]


@sqlite_only
def test_a_missing_root_is_not_remembered_by_caches(ready: Remote) -> None:
    answer = ready.admin.get("/tuf/metadata/2.root.json")
    assert (answer.status_code, answer.headers["cache-control"]) == (404, "no-store")


@sqlite_only
def test_days_to_expiry_are_in_the_metrics(ready: Remote) -> None:
    text = ready.admin.get("/metrics").text
    assert 'pilotwave_metadata_expiry_seconds{role="models-detector"} 1.5552e+07' in text
    assert 'pilotwave_metadata_expiry_seconds{role="timestamp"} 259200.0' in text


@sqlite_only
def test_every_change_is_in_the_audit_log(ready: Remote, operator: httpx.Client) -> None:
    ready.publish("detector", "1.0.0")
    deny = "/api/v1/models/detector/versions/1.0.0/deny"
    operator.post(deny, json={"reason": "smells"})
    events = ready.admin.get("/api/v1/events", params={"limit": 100}).json()["items"]
    verbs = [event["verb"] for event in events]
    for verb in ("trust.root", "trust.targets", "model.create", "version.publish", "version.deny"):
        assert verb in verbs


@sqlite_only
def test_the_data_folder_holds_no_publisher_key(ready: Remote, context: Context) -> None:
    ready.publish("detector", "1.0.0")
    held = context.get(TrustStore).keys("online") + context.get(TrustStore).keys("director")
    offline = [*ready.offline.root_keys, *ready.offline.targets_keys]
    offline += ready.offline.publishers.values()
    assert {k.keyid for k in held}.isdisjoint(k.public_key.keyid for k in offline)
    private = [Path(p).name for p in context.settings.data_dir.rglob("*.pem")]
    assert sorted(private) == ["director-1.pem", "online-1.pem"]
