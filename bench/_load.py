"""The compiled load generator (`_load.c`): built where a C compiler is, and run."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).with_name("_load.c")
ETAG = 24


@dataclass
class Load:
    """Devices (their read tokens, ETags, signed check-ins) that ask a server on `port`."""

    folder: Path
    port: int
    next_check_in: int = 0

    @classmethod
    def of(
        cls, folder: Path, port: int, tokens: Sequence[str], check_ins: Sequence[bytes] = ()
    ) -> Load:
        """Build the generator and write what it needs to `folder`."""
        compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
        if compiler is None:
            raise SystemExit("this needs a C compiler for its load generator: install gcc")
        program = folder / "load"
        subprocess.run([compiler, "-O2", "-o", str(program), str(SOURCE)], check=True, timeout=60)
        (folder / "tokens").write_text("".join(f"{token}\n" for token in tokens))
        (folder / "etags").write_bytes(bytes(ETAG * len(tokens)))
        with (folder / "check_ins").open("wb") as file:
            for body in check_ins:
                file.write(body + b"\n")
        return cls(folder, port)

    def run(
        self, *, seconds: float, polls: float, check_ins: float = 0, connections: int = 64
    ) -> Any:
        """Run to the end; see `start` and `read`."""
        return self.read(
            self.start(seconds=seconds, polls=polls, check_ins=check_ins, connections=connections)
        )

    def start(
        self, *, seconds: float, polls: float, check_ins: float = 0, connections: int = 64
    ) -> subprocess.Popen[str]:
        """Begin: rates are per second; polls -1 as fast as possible, -2 each device once. With
        `connections` below 0, each request has a new one."""
        words = [self.port, connections, seconds, polls, check_ins]
        words += [self.folder / name for name in ("tokens", "etags", "check_ins")]
        command = [str(self.folder / "load"), *map(str, words), str(self.next_check_in)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def read(self, process: subprocess.Popen[str]) -> Any:
        """Wait for the end; returns what `_load.c` prints."""
        out, _ = process.communicate(timeout=3600)
        if process.returncode != 0:
            raise SystemExit(f"the load generator ended with {process.returncode}")
        done = json.loads(out)
        self.next_check_in = done["next_check_in"]
        return done
