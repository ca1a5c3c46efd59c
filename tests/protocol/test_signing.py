"""Keys on disk and the documents that they sign."""

from __future__ import annotations

import json
import stat
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from tuf.api.exceptions import UnsignedMetadataError
from tuf.api.metadata import Metadata, Targets

from pilotwave_protocol import dsse, signing
from pilotwave_protocol.errors import SigningError
from pilotwave_protocol.trust import DirectorKeys, VersionTarget

NOW = datetime(2026, 1, 31, 9, 30, tzinfo=timezone.utc)
VERSION = VersionTarget("detector", "1.0.0", "a" * 64, 10, 1)


def director() -> DirectorKeys:
    key = Ed25519PrivateKey.generate().public_key()
    return DirectorKeys("acme", {dsse.keyid(key): key}, 1)


def test_a_new_key_file_is_its_owners_alone_and_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "k.pem"
    signing.generate_key(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(SigningError, match="exists already"):
        signing.generate_key(path)


def test_the_file_of_a_keys_id_leads_to_the_key(tmp_path: Path) -> None:
    signing.generate_key(tmp_path / "k.pem")
    (tmp_path / "k.keyid").write_text("ab" * 32)
    with pytest.raises(SigningError, match=r"expected a PEM private key .*; is it .*k\.pem\?$"):
        signing.load_signer(tmp_path / "k.keyid")
    (tmp_path / "k.pem").unlink()
    with pytest.raises(SigningError, match=r"\(PKCS#8\)$"):
        signing.load_signer(tmp_path / "k.keyid")


def test_an_encrypted_key_opens_with_its_passphrase_only(tmp_path: Path) -> None:
    path = tmp_path / "k.pem"
    made = signing.generate_key(path, "right")
    assert signing.load_signer(path, lambda _: "right").public_key == made.public_key
    with pytest.raises(SigningError, match="wrong passphrase"):
        signing.load_signer(path, lambda _: "wrong")
    with pytest.raises(SigningError, match="give its passphrase"):
        signing.load_signer(path)


def test_a_plain_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "k.pem"
    signing.generate_key(path)
    path.chmod(0o644)
    with pytest.raises(SigningError, match="chmod 600"):
        signing.load_signer(path)


def test_a_missing_or_broken_key_file_gets_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(SigningError, match="no such file; expected a key"):
        signing.load_signer(tmp_path / "none.pem")
    (tmp_path / "odd.pem").write_text("hello")
    with pytest.raises(SigningError, match="expected a PEM private key"):
        signing.load_signer(tmp_path / "odd.pem")


def test_a_key_reference_works_where_a_file_does(tmp_path: Path) -> None:
    signer = signing.generate_key(tmp_path / "k.pem")
    key = signer.public_key
    reference = {"uri": f"file2:{tmp_path / 'k.pem'}", "keyid": key.keyid, "key": key.to_dict()}
    (tmp_path / "ref.json").write_text(json.dumps(reference))
    assert signing.load_signer(tmp_path / "ref.json").public_key == key
    for broken in ({"uri": "x"}, {**reference, "uri": "nosuch:thing"}):
        (tmp_path / "ref.json").write_text(json.dumps(broken))
        with pytest.raises(SigningError):
            signing.load_signer(tmp_path / "ref.json")


def test_a_role_signed_by_its_publisher_verifies_and_by_another_does_not(tmp_path: Path) -> None:
    owner, publisher, thief = (signing.generate_key(tmp_path / n) for n in ("t", "p", "x"))
    targets = signing.make_targets(director(), now=NOW)
    signing.delegate(targets.signed, "detector", signing.RoleKeys((publisher.public_key,), 1))
    signing.sign(targets, [owner])
    role = signing.make_role("detector", now=NOW)
    signing.add_version(role.signed, VERSION)
    signing.sign(role, [publisher])
    targets.signed.verify_delegate("models-detector", role.signed_bytes, role.signatures)
    signing.sign(role, [thief])
    with pytest.raises(UnsignedMetadataError):
        targets.signed.verify_delegate("models-detector", role.signed_bytes, role.signatures)


def test_delegating_again_replaces_the_keys(tmp_path: Path) -> None:
    old, new = (signing.generate_key(tmp_path / n).public_key for n in ("old", "new"))
    targets = signing.make_targets(director(), now=NOW).signed
    for key in (old, new):
        signing.delegate(targets, "detector", signing.RoleKeys((key,), 1))
    assert targets.delegations is not None
    assert targets.delegations.roles is not None
    assert targets.delegations.roles["models-detector"].keyids == [new.keyid]
    assert set(targets.delegations.keys) == {new.keyid}
    assert targets.delegations.roles["models-detector"].terminating


def test_the_next_version_keeps_content_and_drops_signatures(tmp_path: Path) -> None:
    role = signing.make_role("detector", now=NOW)
    signing.add_version(role.signed, VERSION)
    signing.sign(role, [signing.generate_key(tmp_path / "p")])
    later = NOW + timedelta(days=90)
    fresh = signing.next_version_of(role, now=later, lifetime=signing.ROLE_LIFETIME)
    assert fresh.signed.version == role.signed.version + 1
    assert fresh.signed.expires == later + signing.ROLE_LIFETIME
    assert fresh.signed.targets == role.signed.targets
    assert not fresh.signatures
    assert fresh.signed.unrecognized_fields["signed_at"] == "2026-05-01T09:30:00Z"
    again: Metadata[Targets] = Metadata.from_bytes(signing.to_bytes(fresh))
    assert again.signed == fresh.signed


def test_a_yank_marks_the_entry_and_the_policy_for_ever() -> None:
    role = signing.make_role("detector", now=NOW).signed
    signing.add_version(role, VERSION)
    signing.yank(role, "detector", "1.0.0", reason="leaks", now=NOW)
    assert signing.policy_of(role, "detector").yanked == {"a" * 64}
    entry = role.targets["models/detector/1.0.0.json"]
    assert entry.custom["yanked"] == {"reason": "leaks", "at": "2026-01-31T09:30:00Z"}
    with pytest.raises(SigningError, match="not published"):
        signing.yank(role, "detector", "9.9.9", reason="x", now=NOW)


def test_a_version_is_added_once_and_the_counter_rises() -> None:
    role = signing.make_role("detector", now=NOW).signed
    assert signing.next_counter(role) == 1
    signing.add_version(role, VERSION)
    assert signing.next_counter(role) == 2
    with pytest.raises(SigningError, match="published already"):
        signing.add_version(role, VERSION)


def test_a_key_that_does_not_sign_is_refused_with_a_sentence(tmp_path: Path) -> None:
    """A reader's key lies in the folder of signing keys, where each is tried."""
    path = tmp_path / "reader.pem"
    form = (Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(X25519PrivateKey.generate().private_bytes(*form))
    path.chmod(0o600)
    with pytest.raises(SigningError, match="expected a key that signs"):
        signing.load_signer(path)
