"""Commits whose programs, folders and databases have to go on with this one's."""

from __future__ import annotations

import subprocess
import tarfile
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
OLDER = ("19f785e", "d97d79d")
"""The one before identities, recovery and gates were made hard, and the one before the folders of
the agent and the server were moved."""
BEFORE_SHADOWS = "ce59078"
"""The last one whose agent knows of no version in shadow."""


def is_here() -> bool:
    """Say whether this checkout has the commits; one made with `--depth` has not."""
    wanted = [f"{commit}^{{commit}}" for commit in (*OLDER, BEFORE_SHADOWS)]
    asked = subprocess.run(
        ["git", "cat-file", "--batch-check"],
        input="\n".join(wanted),
        text=True,
        capture_output=True,
        cwd=REPO,
    )
    return asked.returncode == 0 and "missing" not in asked.stdout


def unpack(commit: str, folder: Path) -> None:
    """Put the programs of a commit into a folder that there is not yet."""
    archive = folder.with_name(f"{folder.name}.tar")
    words = ["git", "archive", "-o", archive, commit, "agent", "server", "migrations"]
    subprocess.run(words, cwd=REPO, check=True)
    with tarfile.open(archive) as opened:
        opened.extractall(folder, filter="data")
