"""A key holds one kind of role, and a passphrase that can be guessed makes none."""

from __future__ import annotations

import re
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path

import pytest

from pilotwave_cli.errors import CliError
from pilotwave_cli.keys.keyfiles import check_strength
from tests import programs
from tests.cli.conftest import DIGITS
from tests.cli.operator import Operator


@pytest.mark.parametrize("kind", ["root", "targets"])
def test_root_or_targets_key_is_no_publisher(pw: Operator, name: str, kind: str) -> None:
    line = pw.fails("models", "create", name, "--publisher", pw.keys / f"{kind}-1.pem", status=2)
    assert f"is a {kind} key of this fleet and cannot be a publisher key too" in line
    assert line.endswith("`openssl genpkey -algorithm ed25519 -aes256 -out publisher-new.pem`")
    assert name not in pw("models", "list")


def test_the_key_of_the_printed_command_is_taken(pw: Operator, name: str, tmp_path: Path) -> None:
    made = tmp_path / "publisher-new.pem"
    words = ["openssl", "genpkey", "-algorithm", "ed25519", "-aes256", "-out", str(made)]
    subprocess.run([*words, "-pass", "pass:correct horse"], check=True, capture_output=True)
    secret = tmp_path / "passphrase"
    secret.write_text("correct horse")
    pw("models", "create", name, "--publisher", made, "--key", pw.keys / "targets-1.pem",
       "--key", pw.keys / "targets-2.pem", "--passphrase-file", secret)  # fmt: skip
    assert name in pw("models", "list")


def test_key_under_another_id_is_the_same_key(pw: Operator, name: str, tmp_path: Path) -> None:
    copy = tmp_path / "publisher.pem"
    shutil.copy(pw.keys / "targets-2.pem", copy)
    line = pw.fails("models", "create", name, "--publisher", copy, status=2)
    assert "is a targets key" in line


@pytest.mark.parametrize(
    ("which", "new", "said"),
    [
        (("publisher", "--model"), "targets-1", "targets key"),
        (("publisher", "--model"), "root-1", "root key"),
        (("targets",), "root-1", "root key"),
        (("targets",), "publisher", "publisher key"),
        (("root",), "targets-1", "targets key"),
        (("root",), "publisher", "publisher key"),
    ],
)
def test_rotation_keeps_the_kinds_apart(
    pw: Operator, model: str, which: tuple[str, ...], new: str, said: str
) -> None:
    words = (*which, model) if "--model" in which else which
    line = pw.fails(
        "keys", "rotate", *words, "--new", pw.keys / f"{new}.pem", "--threshold", 1, status=2
    )
    assert f"is a {said} of this fleet" in line


@pytest.mark.parametrize(
    "weak",
    ["", "short", "correct", "aaaaaaaaaaaaaaaa", "123456789012345", "abcabcabcabcabc",
     "passwordpassword", "password123456", "qwertyuiopasdf"],
)  # fmt: skip
def test_passphrase_that_can_be_guessed_is_refused_with_a_sentence(weak: str) -> None:
    with pytest.raises(CliError, match="expected 12 or more that nobody can guess"):
        check_strength(weak)


@pytest.mark.parametrize(
    "good", ["correct horse", "tR7!kq9#Lm2x", "Viel Regen im Mai", "\u96ea山川草木花鳥風月日星海"]
)
def test_passphrase_that_is_long_enough_is_taken(good: str) -> None:
    assert check_strength(good) == good


def test_no_key_is_made_under_a_weak_passphrase(pw: Operator, name: str, tmp_path: Path) -> None:
    weak = pw.but(extra={"PILOTWAVE_PASSPHRASE": "hunter2"})
    line = weak.fails("keys", "rotate", "targets", "--dir", pw.keys, status=2)
    assert "the passphrase has 7 characters" in line
    assert not (pw.keys / "targets-4.pem").exists()


def test_token_is_limited_to_models_and_groups(pw: Operator, model: str, name: str) -> None:
    pw("groups", "create", name, "--selector", f"site={name}")
    words = ("--role", "operator", "--model", model, "--group", name)
    made = pw.json("tokens", "create", f"t-{name}", *words)
    assert (made["models"], made["groups"]) == ([model], [name])
    limited = pw.but(token=made["token"])
    other = f"{model}-other"
    pw("models", "create", other, "--publisher", pw.keys / "publisher.pem")
    pw("publish", other, "1.0.0", "--variant", f"onnx={DIGITS / '1.0.0'}", "--yes")
    assert "may change" in limited.fails(
        "versions", "deny", "--yes", other, "1.0.0", "--reason", "x"
    )


@pytest.mark.parametrize("program", ["pilotwave", "pilotwave-server", "pilotwave-agent"])
def test_each_program_says_its_version(program: str, tmp_path: Path) -> None:
    entries = {
        "pilotwave": programs.CLI,
        "pilotwave-server": programs.SERVER,
        "pilotwave-agent": "pilotwave_agent.cli:main",
    }
    done = programs.run(entries[program], ["--version"], environment={}, folder=tmp_path)
    wanted = rf"{program} {re.escape(version('pilotwave'))}\+[0-9a-f]{{8}}\n"
    assert done.returncode == 0
    assert re.fullmatch(wanted, done.stdout), done.stdout
