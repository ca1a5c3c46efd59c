"""Private keys, passwords and tokens are told by their bytes and by their names."""

from __future__ import annotations

import base64
import bz2
import gzip
import io
import json
import lzma
import random
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import pkcs12

from pilotwave_protocol.secrets import key_in_bytes, secret_by_name, secret_in_file

REPO = Path(__file__).parents[2]
_PLAIN = serialization.NoEncryption()
_LOCKED = serialization.BestAvailableEncryption(b"correct horse")
_FORM = serialization.PrivateFormat
_DER, _PEM = serialization.Encoding.DER, serialization.Encoding.PEM


def _keys() -> Iterator[tuple[str, bytes]]:
    for made in (
        rsa.generate_private_key(65537, 2048),
        ec.generate_private_key(ec.SECP256R1()),
        ed25519.Ed25519PrivateKey.generate(),
    ):
        name = type(made).__name__
        for encoding in (_DER, _PEM):
            yield f"{name} {encoding}", made.private_bytes(encoding, _FORM.PKCS8, _PLAIN)
            yield f"{name} {encoding} locked", made.private_bytes(encoding, _FORM.PKCS8, _LOCKED)
        yield f"{name} OpenSSH", made.private_bytes(_PEM, _FORM.OpenSSH, _PLAIN)
        if not isinstance(made, ed25519.Ed25519PrivateKey):
            for encoding in (_DER, _PEM):
                traditional = made.private_bytes(encoding, _FORM.TraditionalOpenSSL, _PLAIN)
                yield f"{name} {encoding} traditional", traditional
            yield (
                f"{name} PKCS 12",
                pkcs12.serialize_key_and_certificates(b"x", made, None, None, _LOCKED),
            )


KEYS = dict(_keys())
KEYS |= {
    "OpenPGP": b"-----BEGIN PGP PRIVATE KEY BLOCK-----\n\nlQOYBF\n",
    "SSH2": b"---- BEGIN SSH2 ENCRYPTED PRIVATE KEY ----\nComment: x\n",
    "PuTTY": b"PuTTY-User-Key-File-3: ssh-ed25519\n",
    "age": b"# created: 2026\nAGE-SECRET-KEY-1QQQQQQQQQQQQQQQQQQQQQQ\n",
    "Java": b"\xfe\xed\xfe\xed\x00\x00\x00\x02\x00\x00\x00\x01",
    "minisign": b"untrusted comment: minisign encrypted secret key\nRWRTY0Iy",
    "in JSON": json.dumps({"private_key": "-----BEGIN PRIVATE KEY-----\nMIIEvQ\n"}).encode(),
    "in UTF-16": "-----BEGIN PRIVATE KEY-----\r\nMII".encode("utf-16"),
    "in base64": base64.b64encode(b"-----BEGIN RSA PRIVATE KEY-----\nMIIEvQ"),
    "with a mark of order": b"\xef\xbb\xbf-----BEGIN PRIVATE KEY-----\nMII",
}
PASSWORDS = {
    ".env": b"DEBUG=1\nDB_PASSWORD=hunter2hunter2\n",
    "exported": b"#!/bin/sh\nexport AWS_SECRET_ACCESS_KEY='abcdefgh'\n",
    "cloud": b"[default]\naws_access_key_id = AKIAABCDEFGHIJKLMNOP\n",
    "JSON": b'{"type": "authorized_user", "refresh_token": "1//0abcdefgh"}',
    "netrc": b"machine example.org\n  login ada\n  password hunter2\n",
    "pypirc": b"[pypi]\nusername = __token__\npassword = abcdefgh1\n",
    "npmrc": b"//registry.npmjs.org/:_authToken=abcdefgh\n_authToken=abcdefgh\n",
    "YAML": b"db:\n  password: hunter2hunter2\n",
    "GitHub": b"see ghp_" + b"a1" * 18,
    "Hugging Face": b"hf_" + b"aB" * 17,
    "WireGuard": b"[Interface]\nPrivateKey = " + b"a" * 43 + b"=\n",
    "JWK": b'{"kty":"OKP","crv":"Ed25519","d":"abc","x":"def"}',
    "Pilotwave": b"token: pw_" + b"a1B2" * 8,
    "URL": b"see https://ada:hunter2hunter2@models.example.org/det",
    "database": b"url: postgresql+psycopg://ada:hunter2%40@db:5432/x",
    "user without a name": b"redis://:hunter2hunter2@cache:6379/0",
    "containers": b'{"auths": {"ghcr.io": {"auth": "YWRhOmh1bnRlcjJodW50ZXIy"}}}',
    "header": b"Authorization: Basic YWRhOmh1bnRlcjJodW50ZXIy",
    "header of a program": b"curl -H 'Authorization: Bearer eyJhbGciOiJIUzI1NiJ9abc'",
}


@pytest.mark.parametrize("name", KEYS)
def test_a_private_key_is_found_alone_and_told_for_certain(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(KEYS[name])
    found = secret_in_file(tmp_path / "file")
    assert found is not None
    assert found.certain
    assert key_in_bytes(memoryview(KEYS[name])) is not None


@pytest.mark.parametrize("name", [n for n in KEYS if "PEM" in n or n == "age"])
@pytest.mark.parametrize("before", [10, 1 << 20, (1 << 20) - 40])
def test_a_private_key_is_found_inside_weights(name: str, before: int, tmp_path: Path) -> None:
    noise = random.Random(1).randbytes(before)
    (tmp_path / "weights.bin").write_bytes(noise + KEYS[name] + noise)
    assert secret_in_file(tmp_path / "weights.bin")


@pytest.mark.parametrize("name", PASSWORDS)
def test_a_password_or_token_is_found_in_a_text(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(PASSWORDS[name])
    assert secret_in_file(tmp_path / "file")


def _tar(name: str, data: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        entry = tarfile.TarInfo(name)
        entry.size = len(data)
        archive.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def _zip(name: str, data: bytes, how: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", how) as archive:
        archive.writestr(name, data)
    return out.getvalue()


def test_a_key_is_found_in_archives_and_in_archives_in_them(tmp_path: Path) -> None:
    key = KEYS["age"] * 20
    for number, packed in enumerate(
        [
            _zip("a.txt", key),
            _zip("a.txt", key, zipfile.ZIP_STORED),
            _tar("a.txt", key),
            gzip.compress(_tar("a.txt", key)),
            gzip.compress(key),
            bz2.compress(key),
            lzma.compress(key),
            _zip("b.zip", _zip("a.txt", key)),
            gzip.compress(_tar("b.zip", _zip("a.txt", key))),
            _zip("key.der", next(v for n, v in KEYS.items() if "DER" in n)),
            _zip("id_ed25519", b"nothing"),
            _tar(".env", b"nothing"),
        ]
    ):
        path = tmp_path / f"{number}.bin"
        path.write_bytes(packed)
        assert secret_in_file(path), number


def test_models_programs_public_keys_and_word_lists_are_no_secrets(tmp_path: Path) -> None:
    public = ed25519.Ed25519PrivateKey.generate().public_key()
    harmless = {
        "public.pem": public.public_bytes(_PEM, serialization.PublicFormat.SubjectPublicKeyInfo),
        "public.der": public.public_bytes(_DER, serialization.PublicFormat.SubjectPublicKeyInfo),
        "labels.txt": b"password\ntoken\nsecret\nkey\n",
        "program": b"\x7fELF\0\0-----BEGIN RSA PRIVATE KEY-----\0-----END RSA PRIVATE KEY-----\0",
        "tokenizer.json": b'{"bos_token": "<s>", "pad_token": "[PAD]", "token": {"id": 12345}}',
        "config.ini": b"PAD_TOKEN=[PAD]\nMAX_TOKENS=4096\npassword = <yours>\nAPI_KEY=\n",
        "card.md": b"https://user:password@host/ https://$USER:$TOKEN@host http://[::1]:80/a@b "
        b"https://example.org:8600/@ada git@github.com:ada/det Authorization: Bearer $TOKEN",
        "noise.bin": random.Random(2).randbytes(3 << 20),
    }
    for name, raw in harmless.items():
        (tmp_path / name).write_bytes(raw)
    shipped = [*(REPO / "examples").rglob("*.*"), *(REPO / "tests" / "data").rglob("*.*")]
    for path in [*tmp_path.iterdir(), *(p for p in shipped if p.is_file())]:
        assert secret_in_file(path) is None, path


@pytest.mark.parametrize(
    "path",
    [
        ".env", "a/.env.local", "prod.env", ".git/config", "a/.ssh/known_hosts", "id_rsa",
        "id_ed25519", "keys/ID_ECDSA", ".netrc", ".pypirc", ".aws/credentials", "x.p12",
        "store.jks", "me.ppk", ".git-credentials", ".docker/config.json", ".npmrc",
        "credentials.json", "a/credentials", "application_default_credentials.json",
        "client_secret.json", "client_secret_12.apps.json", "service-account.json", "secrets.yaml",
        "terraform.tfstate", "terraform.tfstate.backup", "rclone.conf", "office.ovpn",
    ],
)  # fmt: skip
def test_names_that_hold_secrets_are_known(path: str) -> None:
    assert secret_by_name(path)


@pytest.mark.parametrize(
    "path",
    [
        "model.onnx",
        "env.json",
        "environment",
        "id_rsa.pub",
        "a/labels.txt",
        "git/x",
        "",
        "secretary.json",
        "credentials.md",
        "service.json",
    ],
)
def test_ordinary_names_are_none(path: str) -> None:
    assert secret_by_name(path) is None
