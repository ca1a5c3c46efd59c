"""Find a place for temporary files: under a read-only root the data folder is the only one."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def use_scratch(data_dir: Path) -> None:
    """Have temporary files made in the data folder if the system offers no place for them."""
    try:
        found = tempfile.gettempdir()
    except FileNotFoundError:
        found = ""
    if found and found != os.getcwd():
        return
    folder = data_dir / "tmp"
    folder.mkdir(exist_ok=True)
    tempfile.tempdir = str(folder)
