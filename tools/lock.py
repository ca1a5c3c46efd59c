"""Write the lock files under requirements/: what is installed, with the hash of every file of it.

.venv/bin/python -m tools.lock        needs `uv` (python -m pip install uv) and a package index

The versions are those of constraints.txt; a lock serves Python 3.10 to 3.13, on x86_64 and aarch64.
pip installs nothing from one whose hash is not in it: python -m pip install -r requirements/….lock
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
FOLDER = HERE / "requirements"
# What each is for, and the extras that it has.
LOCKS = {
    "server": ("server", "cli", "mqtt", "object-storage", "tracing"),
    "agent": ("onnxruntime", "mqtt", "websocket"),
    "dev": (
        *("server", "cli", "mqtt", "object-storage", "tracing"),
        *("onnxruntime", "litert", "openvino", "dev"),
    ),
}
# What builds the package itself: it is installed from here, without another index.
BUILD = "hatchling>=1.24\neditables>=0.5\n"
HEAD = "# Written by `python -m tools.lock` from pyproject.toml and constraints.txt; not by hand.\n"


def main() -> int:
    """Write them all. 1 where uv is missing or says no."""
    uv = shutil.which("uv")
    if uv is None:
        print("uv was not found: python -m pip install uv", file=sys.stderr)
        return 1
    FOLDER.mkdir(exist_ok=True)
    for name, extras in LOCKS.items():
        words = [word for extra in extras for word in ("--extra", extra)]
        if not write(uv, FOLDER / f"{name}.lock", ["pyproject.toml", *words]):
            return 1
    return 0 if write(uv, FOLDER / "build.lock", ["-"], given=BUILD) else 1


def write(uv: str, path: Path, words: list[str], *, given: str = "") -> bool:
    """Have uv resolve `words` for every platform; False where it does not."""
    command = [uv, "pip", "compile", *words, "--quiet", "--universal", "--generate-hashes"]
    command += ["--python-version", "3.10", "--constraint", "constraints.txt"]
    command += ["--no-header", "--no-annotate"]
    done = subprocess.run(command, cwd=HERE, input=given, text=True, stdout=subprocess.PIPE)
    if done.returncode == 0:
        path.write_text(f"{HEAD}{done.stdout}")
        print(f"{path.relative_to(HERE)}: {done.stdout.count('==')} packages")
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
