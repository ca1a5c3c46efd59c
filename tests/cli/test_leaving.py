"""Nothing leaves the desk by mistake: empty paths, whole folders, keys and passwords."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import pytest

from pilotwave_protocol import signing
from pilotwave_protocol.secrets import secret_in_file
from tests.cli.conftest import DIGITS
from tests.cli.operator import Operator

KEY = b"-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIJ1mJkYyYyMzMzMz\n-----END"


@pytest.fixture
def folder(pw: Operator) -> Path:
    """A model's folder, ready to be published, in the person's own."""
    return Path(shutil.copytree(DIGITS / "1.0.0", pw.home / "model"))


def _refused(pw: Operator, model: str, variant: str, *words: str) -> str:
    said = pw.fails("publish", model, "1.0.0", "--variant", variant, *words, status=2)
    assert pw.json("versions", "list", model) == []
    return said


@pytest.mark.parametrize("given", ["onnx=", "onnx= "])
def test_an_empty_path_is_refused(pw: Operator, model: str, folder: Path, given: str) -> None:
    assert "expected a file or folder after =" in _refused(pw, model, given)


def test_a_variant_without_a_name_is_told_the_form(pw: Operator, model: str) -> None:
    said = pw.fails("publish", model, "1.0.0", "--variant", "onnx", "--yes", status=2)
    assert "expected NAME=PATH, such as onnx=build/model.onnx; got 'onnx'" in said


@pytest.mark.parametrize("given", [".", "./", "model/..", "..", "/", "$HERE", "link"])
def test_the_folder_one_is_in_needs_a_word(
    pw: Operator, model: str, folder: Path, given: str
) -> None:
    (pw.home / "link").symlink_to(pw.home)
    path = given.replace("$HERE", str(pw.home))
    assert "--all-files" in _refused(pw, model, f"onnx={path}")


def test_with_the_word_it_is_taken_but_no_key_in_it(pw: Operator, model: str, folder: Path) -> None:
    inside = pw.but(home=folder)
    (folder / "publisher.pem").write_bytes(KEY)
    said = _refused(inside, model, "onnx=.", "--all-files")
    assert "private key" in said
    assert "move it out of the folder" in said
    (folder / "publisher.pem").unlink()
    inside("publish", model, "1.0.0", "--variant", "onnx=.", "--all-files")


@pytest.mark.parametrize(
    ("name", "content", "word"),
    [
        ("publisher.pem", KEY, "private key"),
        ("notes.txt", b"see below\n" + KEY, "private key"),
        ("weights.bin", b"\0" * 3_000_000 + KEY, "private key"),
        ("identity.txt", b"AGE-SECRET-KEY-1QQQQQQQQQQQQQQQQQQQQ\n", "private key"),
        ("settings.txt", b"API_KEY=abcdefgh12345\n", "password or token"),
        ("id_ed25519", b"short", "secrets"),
        (".env", b"A=1", "secrets"),
        (".ssh/config", b"Host *", "secrets"),
        (".git/config", b"[core]", "secrets"),
    ],
)
def test_a_secret_in_the_folder_is_refused(
    pw: Operator, model: str, folder: Path, name: str, content: bytes, word: str
) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(content)
    said = _refused(pw, model, "onnx=model")
    assert word in said
    assert Path(name).name in said or Path(name).parts[0] in said


def test_a_secret_in_an_archive_is_refused(pw: Operator, model: str, folder: Path) -> None:
    with zipfile.ZipFile(folder / "extra.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/keys.txt", KEY * 30)
    done = pw.run("publish", model, "1.0.0", "--variant", "onnx=model", "--unsafe-format")
    assert done.returncode == 2
    assert "private key" in done.stderr


@pytest.mark.parametrize("given", ["id_ed25519", ".ssh/id_ed25519", "keys/publisher.pem"])
def test_a_key_named_by_its_path_is_refused(pw: Operator, model: str, given: str) -> None:
    path = pw.home / given
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(KEY)
    _refused(pw, model, f"onnx={given}", "--unsafe-format")


def test_what_only_looks_like_a_password_is_taken_by_name(
    pw: Operator, model: str, folder: Path
) -> None:
    (folder / "sample.txt").write_text("password = correct-horse\n")
    assert "--not-secret sample.txt" in _refused(pw, model, "onnx=model")
    (folder / "key.txt").write_bytes(KEY)
    both = ("--not-secret", "sample.txt", "--not-secret", "key.txt")
    assert "private key" in _refused(pw, model, "onnx=model", *both)
    (folder / "key.txt").unlink()
    pw("publish", model, "1.0.0", "--variant", "onnx=model", "--not-secret", "sample.txt")


def test_a_dry_run_lists_files_with_sizes_and_sends_nothing(
    pw: Operator, model: str, folder: Path
) -> None:
    words = ("publish", model, "1.0.0", "--variant", "onnx=model", "--dry-run")
    said = pw(*words)
    assert "model.onnx  " in said
    assert "kB" in said
    assert "nothing was sent" in said
    assert {f["path"] for f in pw.json(*words)["files"]} == {"model.onnx", "selftest.safetensors"}
    assert pw.json("versions", "list", model) == []


@pytest.mark.parametrize(("answer", "sent"), [("n", False), ("y", True)])
def test_at_a_terminal_it_asks(
    pw: Operator, model: str, folder: Path, answer: str, sent: bool
) -> None:
    words = ("publish", model, "1.0.0", "--variant", "onnx=model")
    status, said = pw.at_terminal(*words, answer=answer)
    assert "model.onnx" in said
    assert (status == 0) is sent
    assert len(pw.json("versions", "list", model)) == int(sent)


def test_the_keys_that_the_command_makes_are_told(tmp_path: Path) -> None:
    for passphrase in (None, "correct horse battery"):
        path = tmp_path / f"{passphrase}.pem"
        signing.generate_key(path, passphrase)
        assert secret_in_file(path)


def test_names_that_differ_only_in_capital_letters_are_both_named(
    pw: Operator, model: str, folder: Path
) -> None:
    (folder / "Labels.txt").write_text("a")
    (folder / "labels.txt").write_text("b")
    said = _refused(pw, model, "onnx=model")
    assert "labels.txt and Labels.txt differ only in capital letters: rename one" in said


def test_a_special_file_is_not_called_an_empty_folder(pw: Operator, model: str) -> None:
    assert "/dev/zero: is a special file" in _refused(pw, model, "onnx=/dev/zero")


@pytest.mark.parametrize(
    ("name", "content", "word"),
    [
        ("credentials.json", b"{}", "where secrets are kept"),
        ("card.md", b"https://ada:hunter2hunter2@models.example.org", "a password in a URL"),
    ],
)
def test_a_password_that_stands_in_a_name_or_url_is_refused(
    pw: Operator, model: str, folder: Path, name: str, content: bytes, word: str
) -> None:
    (folder / name).write_bytes(content)
    assert word in _refused(pw, model, "onnx=model")
