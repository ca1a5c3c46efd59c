"""Unchanged polls per second beside those of gooseBit, the closest open peer; SQLite each.

gooseBit (FastAPI as well) comes from PyPI into a virtual environment of its own; its tables are
made by aerich from its own migrations, its devices written to them as they stand after an update.
Both run in turns on this machine, with one process, the same uvicorn options, the same number of
devices and wrk.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from _bench import MODEL, Bench, main, median, publish, server
from _fleet import add_devices, read_tokens
from polls import LUA, free_port, load, prime

GOOSEBIT = "goosebit==0.2.12"
CONTROLLER = "/DEFAULT/controller/v1"
PEER_LUA = """
local requests, place = {}, 0
function init(args)
  for line in io.lines(args[1]) do
    requests[#requests + 1] = wrk.format("GET", line, {["Host"] = "127.0.0.1"})
  end
end
function request()
  place = place % #requests + 1
  return requests[place]
end
"""


def install(folder: Path) -> Path:
    """Install gooseBit; returns the folder of its programs."""
    environment = folder / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True, timeout=120)
    pip = [str(environment / "bin" / "pip"), "install", "-q", "--disable-pip-version-check"]
    subprocess.run([*pip, GOOSEBIT], check=True, timeout=600, capture_output=True)
    return environment / "bin"


def make_tables(folder: Path, programs: Path, environment: dict[str, str]) -> None:
    """Have aerich make gooseBit's tables from its own migrations."""
    where = "import goosebit.db, pathlib; print(pathlib.Path(goosebit.db.__file__).parent)"
    found = subprocess.run(
        [str(programs / "python"), "-c", where],
        check=True,
        capture_output=True,
        text=True,
        env=environment,
        cwd=folder,
        timeout=120,
    )
    migrations = Path(found.stdout.strip().splitlines()[-1]) / "migrations"
    (folder / "pyproject.toml").write_text(
        "[tool.aerich]\n"
        'tortoise_orm = "goosebit.db.config.TORTOISE_CONF"\n'
        f"location = {json.dumps(str(migrations))}\n"
        'src_folder = "./."\n'
    )
    done = subprocess.run(
        [str(programs / "aerich"), "upgrade"],
        capture_output=True,
        text=True,
        env=environment,
        cwd=folder,
        timeout=120,
    )
    if done.returncode != 0:
        raise SystemExit(
            f"aerich did not make gooseBit's tables: {done.stdout}{done.stderr}"[-900:]
        )


def add_peer_devices(database: Path, names: list[str]) -> None:
    """Write devices that run the newest version and have nothing to do."""
    finished, rollout = 5, 2
    with closing(sqlite3.connect(database, timeout=60)) as connection:
        made = connection.execute(
            "INSERT INTO hardware (model, revision) VALUES ('board', '1')"
        ).lastrowid
        connection.executemany(
            "INSERT INTO device (id, name, sw_version, feed, update_mode, last_state, hardware_id,"
            " force_update) VALUES (?, ?, '1.0.0', 'default', ?, ?, ?, 0)",
            ((name, name, rollout, finished, made) for name in names),
        )
        connection.commit()


@contextmanager
def goosebit(folder: Path, names: list[str]) -> Iterator[int]:
    """Run gooseBit with these devices; yields its port."""
    programs, database = install(folder), folder / "db.sqlite3"
    environment = {
        **{k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")},
        "GOOSEBIT_DB_URI": f"sqlite://{database}",
        "GOOSEBIT_ARTIFACTS_DIR": str(folder / "artifacts"),
    }
    make_tables(folder, programs, environment)
    add_peer_devices(database, names)
    port = free_port()
    options = ["--host", "127.0.0.1", "--port", str(port), "--no-access-log"]
    options += ["--log-level", "error", "--loop", "uvloop", "--http", "httptools"]
    fast = [str(programs / "pip"), "install", "-q", "uvloop", "httptools"]
    subprocess.run(fast, check=True, timeout=300, capture_output=True)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [str(programs / "uvicorn"), "goosebit:app", *options],
            env=environment,
            cwd=folder,
            stdout=log,
            stderr=log,
        )
        try:
            wait_for(port, names[0], process, folder / "log")
            yield port
        finally:
            process.terminate()
            process.wait(20)


def wait_for(port: int, name: str, process: subprocess.Popen[bytes], log: Path) -> None:
    url, ends = f"http://127.0.0.1:{port}{CONTROLLER}/{name}", time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                links = json.load(answer).get("_links", {})
            if links:
                raise SystemExit(f"gooseBit wants something of an idle device: {links}")
            return
        except OSError:
            if process.poll() is not None or time.monotonic() > ends:
                raise SystemExit(f"gooseBit did not start: {log.read_text()[-900:]}") from None
            time.sleep(0.2)


def measure(bench: Bench) -> None:
    if shutil.which("wrk") is None:
        raise SystemExit("this needs wrk, a load generator: install the Debian package wrk")
    devices = 2_000 if bench.quick else 20_000
    rounds, seconds = (2, 4) if bench.quick else (5, 10)
    limits = {"token_lifetime_s": 3600}
    with tempfile.TemporaryDirectory(prefix="goosebit-") as temporary, server(**limits) as stage:
        publish(stage, "1.0.0")
        stage.pilotwave("groups", "create", "all", "--selector", "site")
        stage.pilotwave("assign", "--yes", MODEL, "1.0.0", "--group", "all")
        names = add_devices(stage.root / "data", devices)
        time.sleep(1)
        port = int(stage.url.rsplit(":", 1)[1])
        tokens = read_tokens(next((stage.root / "data" / "keys").glob("*token*")), names)
        etags = prime(port, tokens)
        ours_file, ours_script = stage.root / "tokens.txt", stage.root / "ours.lua"
        ours_file.write_text("".join(f"{t} {e}\n" for t, e in zip(tokens, etags, strict=True)))
        ours_script.write_text(LUA)
        folder = Path(temporary)
        with goosebit(folder, names) as peer_port:
            bench.say(f"{GOOSEBIT} answers")
            peer_file, peer_script = folder / "paths.txt", folder / "peer.lua"
            peer_file.write_text("".join(f"{CONTROLLER}/{name}\n" for name in names))
            peer_script.write_text(PEER_LUA)
            ours, theirs, tails, errors = [], [], [], 0
            for _ in range(rounds):
                rate, tail, bad = load(peer_port, peer_script, peer_file, seconds)
                theirs.append(rate)
                tails.append(tail)
                rate, _, ours_bad = load(port, ours_script, ours_file, seconds)
                ours.append(rate)
                errors += bad + ours_bad
        ratio = median([a / b for a, b in zip(ours, theirs, strict=True)])
        bench.figure("devices", devices)
        bench.figure("polls_per_s", median(ours))
        bench.figure("goosebit_polls_per_s", median(theirs))
        bench.figure("goosebit_poll_p99_ms", median(tails))
        bench.figure("times_as_many", ratio, "at least 60", ratio >= 60)
        bench.figure("answers_that_were_errors", errors, "0", errors == 0)


if __name__ == "__main__":
    main("peer_goosebit", measure)
