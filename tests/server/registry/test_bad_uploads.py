"""Each way in which a publisher's document can be wrong, and the code with which it is refused.

The numbers are the steps of `checks.py` and `contents.py`.
"""

from __future__ import annotations

import io
import pickle
import shutil
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from securesystemslib.signer import CryptoSigner
from sqlalchemy import func, select
from tuf.api.metadata import DelegatedRole, Delegations, TargetFile

from pilotwave_protocol import signing
from pilotwave_protocol.digest import sha256_hex
from pilotwave_protocol.manifest import FileEntry, Requires, TensorSpec, VersionManifest
from pilotwave_protocol.trust import ModelPolicy
from pilotwave_server.db import Database
from pilotwave_server.errors import ServerError
from pilotwave_server.registry.publish import publish
from pilotwave_server.registry.tables import TufMetadataRow
from tests.protocol.compiled import hef, rknn
from tests.server.registry.offline import new_key
from tests.server.registry.registry import Registry, onnx

MODELS = Path(__file__).parents[2] / "data" / "models"

NOW = datetime(2026, 1, 31, 9, 30, tzinfo=timezone.utc)
PATH = "models/detector/2.0.0.json"


class Clock:
    now = NOW

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture(scope="module")
def registry(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """One registry for all cases, for each leaves it as it was: detector 1.0.0, 1.1.0 (yanked)."""
    folder = tmp_path_factory.mktemp("registry")
    url = f"sqlite:///{shutil.copy(sqlite_template, folder / 'pilotwave.db')}"
    db = Database(url)
    made = Registry(db, folder, Clock()).bootstrap()
    made.create_model("detector").create_model("lanes")
    made.publish("detector", "1.0.0")
    made.publish("detector", "1.1.0")
    made.yank("detector", "1.1.0")
    yield made
    db.close()


@pytest.fixture
def upload(registry: Registry) -> Upload:
    return Upload(registry)


class Upload:
    """A good upload of detector 2.0.0, for a test to spoil before it is handed in."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.model = "detector"
        self.manifest = registry.manifest("detector", "2.0.0")
        self.role = registry.offline.with_version(registry.role("detector"), self.manifest)
        self.signers: list[CryptoSigner] = [registry.offline.publishers["detector"]]
        self.manifests: list[bytes] | None = None
        self.spoil: Callable[[dict[str, Any]], None] = lambda document: None

    @property
    def targets(self) -> dict[str, TargetFile]:
        return self.role.signed.targets

    @property
    def entry(self) -> TargetFile:
        return self.targets[PATH]

    @property
    def policy(self) -> ModelPolicy:
        return signing.policy_of(self.role.signed, "detector")

    @policy.setter
    def policy(self, policy: ModelPolicy) -> None:
        signing.set_policy(self.role.signed, "detector", policy)

    def put(self, manifest: VersionManifest, **entry: Any) -> None:
        """Offer another manifest, signed as it should be (or with the given differences)."""
        self.manifest = manifest
        self.role = self.registry.offline.with_version(self.registry.role("detector"), manifest)
        for path, target in self.targets.items():
            if path == f"models/detector/{manifest.version}.json":
                for key, value in entry.items():
                    setattr(target, key, value)

    def files(self, **files: bytes) -> None:
        self.put(self.registry.manifest("detector", "2.0.0", dict(files)))

    def hand_in(self) -> None:
        signing.sign(self.role, self.signers)
        document = self.role.to_dict()
        self.spoil(document)
        publish(
            db=self.registry.db,
            trust=self.registry.trust,
            blobs=self.registry.blobs,
            model=self.model,
            document=document,
            manifests=[self.manifest.to_bytes()] if self.manifests is None else self.manifests,
            actor="token/ci",
            now=NOW,
        )


Spoil = Callable[[Upload], None]
CASES: list[tuple[str, str, Spoil]] = []


def case(code: str) -> Callable[[Spoil], Spoil]:
    def add(spoil: Spoil) -> Spoil:
        CASES.append((code, spoil.__name__, spoil))
        return spoil

    return add


# --- 1 and 2: size, form, type


@case("metadata_too_large")
def a_document_of_three_megabytes(u: Upload) -> None:
    for n in range(9000):
        entry = TargetFile(1, {"sha256": "0" * 64}, PATH, {"custom": {"note": "x" * 150}})
        u.targets[f"models/detector/3.0.{n}.json"] = entry


@case("bad_metadata")
def no_tuf_document(u: Upload) -> None:
    u.spoil = lambda d: d.clear()


@case("bad_metadata")
def a_float_which_canonical_json_has_not(u: Upload) -> None:
    u.spoil = lambda d: d["signed"]["targets"][PATH]["custom"].update(counter=1.5)


@case("bad_metadata")
def a_field_outside_the_signature(u: Upload) -> None:
    u.spoil = lambda d: d.update(note="unsigned")


@case("bad_metadata")
def an_unknown_field(u: Upload) -> None:
    u.role.signed.unrecognized_fields["hello"] = 1


@case("bad_metadata")
def two_signatures_by_one_key(u: Upload) -> None:
    u.spoil = lambda d: d["signatures"].append(dict(d["signatures"][0]))


@case("wrong_metadata_type")
def a_snapshot_for_a_role(u: Upload) -> None:
    u.spoil = lambda d: d["signed"].update(_type="snapshot", meta={})


@case("signed_in_future")
def a_signing_time_that_would_stop_devices(u: Upload) -> None:
    u.role.signed.unrecognized_fields["signed_at"] = "2026-02-07T00:00:00Z"


@case("model_unknown")
def a_model_that_nobody_made(u: Upload) -> None:
    u.model = "ghosts"


# --- 3 to 6: version, signatures, expiry, delegations


@case("version_clash")
def the_present_version_again(u: Upload) -> None:
    u.role.signed.version -= 1


@case("version_clash")
def a_fast_forward(u: Upload) -> None:
    u.role.signed.version = 2**31


@case("metadata_unsigned")
def no_signature(u: Upload) -> None:
    u.signers = []


@case("metadata_unsigned")
def a_stranger_s_key(u: Upload) -> None:
    u.signers = [new_key()]


@case("metadata_unsigned")
def the_server_s_online_key(u: Upload) -> None:
    key = u.registry.trust.keys("online")[-1].signer
    assert isinstance(key, CryptoSigner)
    u.signers = [key]


@case("metadata_unsigned")
def the_publisher_of_another_model(u: Upload) -> None:
    u.signers = [u.registry.offline.publishers["lanes"]]


@case("metadata_unsigned")
def a_bit_changed_after_signing(u: Upload) -> None:
    u.spoil = lambda d: d["signed"]["targets"][PATH].update(length=99)


@case("expiry_out_of_bounds")
def expired(u: Upload) -> None:
    u.role.signed.expires = NOW - timedelta(days=1)


@case("expiry_out_of_bounds")
def good_for_two_more_days(u: Upload) -> None:
    u.role.signed.expires = NOW + timedelta(days=2)


@case("expiry_out_of_bounds")
def good_for_ten_years(u: Upload) -> None:
    u.role.signed.expires = NOW + timedelta(days=3650)


@case("sub_delegation")
def a_delegation_to_a_friend(u: Upload) -> None:
    key = new_key().public_key
    role = DelegatedRole("friend", [key.keyid], 1, True, ["models/detector/*"])
    u.role.signed.delegations = Delegations({key.keyid: key}, {"friend": role})


# --- 7 and 8: paths and entries


@case("outside_delegation")
def an_entry_of_another_model(u: Upload) -> None:
    u.targets["models/lanes/2.0.0.json"] = u.targets.pop(PATH)


@case("outside_delegation")
def another_model_s_policy_dressed_as_a_version(u: Upload) -> None:
    u.targets["models/lanes/1.0.0.json"] = u.entry


HOSTILE_PATHS = [
    "models/detector/..",
    "models/detector/../lanes/2.0.0.json",
    "models/detector/a\\b.json",
    "models/detector/2.0.0.json/extra",
    "/models/detector/2.0.0.json",
    "models/detector/2.0.0.pkl",
    "models/detector/2.0.0 .json",
    "models/detector/x.json",
    "models/Detector/2.0.0.json",
    "models//2.0.0.json",
    "models/detector/%2e%2e.json",
    "models/detector/2.0.0\u0000.json",
    "models/[a-z]*/2.0.0.json",
    "fleet/director",
]
for _path in HOSTILE_PATHS:

    def _hostile(u: Upload, path: str = _path) -> None:
        u.targets[path] = u.targets.pop(PATH)

    CASES.append(("bad_target_path", f"the_path_{_path!a}", _hostile))


@case("bad_hashes")
def a_further_hash(u: Upload) -> None:
    u.entry.hashes["sha512"] = "0" * 128


@case("bad_hashes")
def another_hash(u: Upload) -> None:
    u.entry.hashes = {"md5": "0" * 32}


@case("bad_custom")
def no_custom(u: Upload) -> None:
    u.entry.unrecognized_fields = {}


@case("bad_custom")
def a_counter_of_zero(u: Upload) -> None:
    u.entry.custom["counter"] = 0


@case("bad_custom")
def a_counter_as_text(u: Upload) -> None:
    u.entry.custom["counter"] = "3"


@case("bad_custom")
def an_unknown_word_in_custom(u: Upload) -> None:
    u.entry.custom["autorun"] = True


@case("bad_custom")
def a_yank_without_a_time(u: Upload) -> None:
    u.entry.custom["yanked"] = {"reason": "no"}


@case("bad_custom")
def a_short_digest(u: Upload) -> None:
    u.entry.hashes = {"sha256": "abc"}


# --- 9 and 10: append-only, new versions


@case("entry_removed")
def a_version_taken_off(u: Upload) -> None:
    del u.targets["models/detector/1.0.0.json"]


@case("version_exists")
def another_content_for_a_published_version(u: Upload) -> None:
    u.targets["models/detector/1.0.0.json"].hashes = dict(u.entry.hashes)


@case("version_exists")
def another_spelling_of_a_published_version(u: Upload) -> None:
    u.put(replace(u.manifest, version="1.0"))


@case("entry_changed")
def another_counter_for_a_published_version(u: Upload) -> None:
    u.targets["models/detector/1.0.0.json"].custom["counter"] = 17


@case("unyanked")
def a_yank_taken_back(u: Upload) -> None:
    del u.targets["models/detector/1.1.0.json"].custom["yanked"]


@case("counter_not_rising")
def a_counter_used_before(u: Upload) -> None:
    u.put(replace(u.manifest, counter=2))


@case("below_floor")
def a_new_version_below_the_floor(u: Upload) -> None:
    u.policy = replace(u.policy, floor=u.manifest.counter + 1)


@case("yanked_digest")
def a_new_version_that_is_yanked_already(u: Upload) -> None:
    u.policy = replace(u.policy, yanked=u.policy.yanked | {u.entry.hashes["sha256"]})


# --- 11: policy


@case("bad_policy")
def no_policy(u: Upload) -> None:
    del u.targets["models/detector/_policy"]


@case("bad_policy")
def a_policy_with_content(u: Upload) -> None:
    u.targets["models/detector/_policy"].length = 7


@case("bad_policy")
def a_policy_with_a_further_word(u: Upload) -> None:
    u.targets["models/detector/_policy"].custom["ceiling"] = 3


@case("floor_too_high")
def a_floor_above_everything(u: Upload) -> None:
    del u.targets[PATH]
    u.policy = replace(u.policy, floor=10**9)


@case("yank_forgotten")
def a_yanked_digest_left_out(u: Upload) -> None:
    u.policy = replace(u.policy, yanked=frozenset())


@case("yank_forgotten")
def a_yank_that_the_policy_does_not_list(u: Upload) -> None:
    entry = u.targets["models/detector/1.0.0.json"]
    entry.custom["yanked"] = {"reason": "no", "at": "2026-01-31T09:30:00Z"}


# --- 12 and 13: manifest and blobs


@case("manifest_missing")
def no_manifest(u: Upload) -> None:
    u.manifests = []


@case("manifest_mismatch")
def another_manifest(u: Upload) -> None:
    u.manifests = [replace(u.manifest, description="other").to_bytes()]


@case("manifest_mismatch")
def a_wrong_length(u: Upload) -> None:
    u.entry.length += 1


@case("manifest_invalid")
def a_manifest_that_is_none(u: Upload) -> None:
    raw = b'{"schema": "pilotwave/version/1"}'
    u.entry.hashes, u.entry.length = {"sha256": sha256_hex(raw)}, len(raw)
    u.manifests = [raw]


@case("manifest_of_another")
def the_manifest_of_another_model(u: Upload) -> None:
    raw = replace(u.manifest, model="lanes").to_bytes()
    u.entry.hashes, u.entry.length = {"sha256": sha256_hex(raw)}, len(raw)
    u.manifests = [raw]


@case("manifest_of_another")
def a_manifest_with_another_counter(u: Upload) -> None:
    raw = replace(u.manifest, counter=9).to_bytes()
    u.entry.hashes, u.entry.length = {"sha256": sha256_hex(raw)}, len(raw)
    u.manifests = [raw]


@case("blobs_missing")
def a_blob_that_was_not_uploaded(u: Upload) -> None:
    variant = u.manifest.variants[0]
    files = (*variant.files, FileEntry("labels.txt", 4, sha256_hex(b"none")))
    u.put(replace(u.manifest, variants=(replace(variant, files=files),)))


@case("blob_size_wrong")
def a_blob_of_another_size(u: Upload) -> None:
    variant = u.manifest.variants[0]
    files = tuple(replace(file, size=file.size + 1) for file in variant.files)
    u.put(replace(u.manifest, variants=(replace(variant, files=files),)))


# --- 14: formats


@case("format_mismatch")
def a_text_that_is_called_onnx(u: Upload) -> None:
    u.files(**{"model.onnx": b"not a model"})


@case("format_mismatch")
def a_pickle_of_protocol_0_that_is_called_onnx(u: Upload) -> None:
    u.files(**{"model.onnx": pickle.dumps(Exception("hello"), protocol=0)})


@case("format_mismatch")
def an_onnx_file_cut_short(u: Upload) -> None:
    u.files(**{"model.onnx": onnx("a model")[:-2]})


KEY = b"-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAE\n"


@case("private_key_found")
def a_private_key_beside_the_model(u: Upload) -> None:
    u.files(**{"model.onnx": onnx("a model"), "notes.txt": KEY})


@case("private_key_found")
def a_private_key_deep_in_the_weights(u: Upload) -> None:
    u.files(**{"model.onnx": onnx("a model"), "weights.bin": b"\0" * 2_000_000 + KEY})


@case("unsafe_format")
def a_pickle_among_the_files(u: Upload) -> None:
    u.files(**{"model.onnx": onnx("a model"), "extra.bin": pickle.dumps([1, 2])})


@case("unsafe_format")
def an_old_pickle_among_the_files(u: Upload) -> None:
    raw = pickle.dumps(Exception("hello"), protocol=0)
    u.files(**{"model.onnx": onnx("a model"), "labels.txt": raw})


@case("unsafe_format")
def a_zip_among_the_files(u: Upload) -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as out:
        out.writestr("golden.npy", b"x")
    u.files(**{"model.onnx": onnx("a model"), "golden.npz": archive.getvalue()})


@case("format_mismatch")
def another_format_than_declared(u: Upload) -> None:
    u.files(**{"model.onnx": b"GGUF" + bytes(60)})


@case("format_mismatch")
def a_format_that_the_runtime_does_not_open(u: Upload) -> None:
    variant = replace(u.manifest.variants[0], runtime="litert", format="")
    u.put(replace(u.manifest, variants=(variant,)))


@case("format_mismatch")
def an_agent_under_another_name_than_its_own(u: Upload) -> None:
    pin = f"pilotwave==0.2.0 --hash=sha256:{'a' * 64}\n".encode()
    given = {"runtime": "wheelhouse", "entrypoint": "requirements.txt", "format": "wheelhouse"}
    files = {"requirements.txt": pin}
    u.put(u.registry.manifest("detector", "2.0.0", files, **given, unsafe_format=True))


@case("format_mismatch")
def a_model_for_a_hailo_whose_bytes_are_for_a_rockchip(u: Upload) -> None:
    given = {"runtime": "hailo", "entrypoint": "model.hef", "format": "hailo-hef"}
    u.put(u.registry.manifest("detector", "2.0.0", {"model.hef": rknn(["rk3588"])}, **given))


def _for_ethos_u(u: Upload, accelerator: str | None) -> None:
    files = {"m.tflite": (MODELS / "digits_ethos_u65_256.tflite").read_bytes()}
    requires = Requires(accelerator=accelerator)
    given = {"runtime": "litert", "entrypoint": "m.tflite", "format": "tflite"}
    u.put(u.registry.manifest("detector", "2.0.0", files, **given, requires=requires))


@case("accelerator_missing")
def a_model_for_an_accelerator_that_no_device_has_to_have(u: Upload) -> None:
    _for_ethos_u(u, None)


@case("accelerator_missing")
def a_model_for_another_accelerator_than_the_devices_have(u: Upload) -> None:
    _for_ethos_u(u, "coral")


@case("accelerator_missing")
def a_program_whose_only_model_is_for_a_chip_that_no_device_has_to_have(u: Upload) -> None:
    given = {"runtime": "command", "entrypoint": "run", "format": "program", "unsafe_format": True}
    files = {"run": b"#!/bin/sh\n", "model.hef": hef(3)}
    u.put(u.registry.manifest("detector", "2.0.0", files, **given))


@case("schema_mismatch")
def an_output_that_the_model_does_not_have(u: Upload) -> None:
    outputs = (TensorSpec("z", "float32", (1,)),)
    u.put(replace(u.manifest, variants=(replace(u.manifest.variants[0], outputs=outputs),)))


@case("schema_mismatch")
def an_output_of_another_type(u: Upload) -> None:
    outputs = (TensorSpec("y", "int8", ()),)
    u.put(replace(u.manifest, variants=(replace(u.manifest.variants[0], outputs=outputs),)))


@case("format_mismatch")
def an_ir_without_its_weights(u: Upload) -> None:
    files = {"model.xml": (MODELS / "mlp_ir.xml").read_bytes()}
    given = {"runtime": "openvino", "entrypoint": "model.xml", "format": "openvino-ir"}
    u.put(u.registry.manifest("detector", "2.0.0", files, **given))


@case("format_mismatch")
def an_empty_file_as_a_model(u: Upload) -> None:
    u.files(**{"model.onnx": b""})


@case("unsafe_format")
def a_manifest_that_says_unsafe_where_the_target_does_not(u: Upload) -> None:
    variant = replace(u.manifest.variants[0], unsafe_format=True)
    u.put(replace(u.manifest, variants=(variant,)))
    del u.entry.custom["unsafe_format"]


@pytest.mark.parametrize(("code", "name", "spoil"), CASES, ids=[c[1] for c in CASES])
def test_is_refused(registry: Registry, upload: Upload, code: str, name: str, spoil: Spoil) -> None:
    before = _state(registry)
    spoil(upload)
    with pytest.raises(ServerError) as refused:
        upload.hand_in()
    assert refused.value.code == code, refused.value.detail
    assert 400 <= refused.value.status < 500
    assert _state(registry) == before


def _state(registry: Registry) -> Any:
    with registry.db.read() as session:
        query = select(TufMetadataRow.role, func.max(TufMetadataRow.version))
        rows = session.execute(query.group_by(TufMetadataRow.role)).tuples().all()
    return sorted(rows)


def test_at_least_23_kinds_are_told_apart() -> None:
    assert len({code for code, _, _ in CASES}) >= 23


def test_the_upload_is_good_before_it_is_spoilt(sqlite_template: Path, tmp_path: Path) -> None:
    db = Database(f"sqlite:///{shutil.copy(sqlite_template, tmp_path / 'pilotwave.db')}")
    registry = Registry(db, tmp_path, Clock()).bootstrap().create_model("detector")
    Upload(registry).hand_in()
    assert registry.trust.versions.snapshot == 3
    db.close()


def test_a_declared_and_signed_pickle_is_taken(sqlite_template: Path, tmp_path: Path) -> None:
    db = Database(f"sqlite:///{shutil.copy(sqlite_template, tmp_path / 'pilotwave.db')}")
    registry = Registry(db, tmp_path, Clock()).bootstrap().create_model("detector")
    upload = Upload(registry)
    files = {"model.pkl": pickle.dumps([1])}
    given = {"runtime": "acme-loader", "format": "pickle", "unsafe_format": True}
    upload.put(registry.manifest("detector", "2.0.0", files, **given))
    upload.hand_in()
    db.close()
