"""Unchanged-directive polls per second against a bare ASGI app on the same uvicorn, same run."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

from _bench import MODEL, Bench, main, median, memory_kb, publish, server
from _fleet import Answer, add_devices, ask_all, read_tokens

LUA = """
local requests, place = {}, 0
function init(args)
  for line in io.lines(args[1]) do
    local token, etag = line:match("^(%S+) (%S+)$")
    requests[#requests + 1] = wrk.format("GET", "/device/v1/directive", {
      ["Host"] = "127.0.0.1", ["Authorization"] = "Bearer " .. token, ["If-None-Match"] = etag})
  end
  math.randomseed(tonumber(tostring({}):match("0x(%x+)"), 16) % 2147483647)
  place = math.random(#requests)
end
function request()
  place = place % #requests + 1
  return requests[place]
end
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def load(port: int, script: Path, tokens: Path, seconds: int) -> tuple[float, float, int]:
    """Run wrk; returns requests per second, p99 in ms, answers that were errors."""
    done = subprocess.run(
        [
            "wrk",
            "-t1",
            "-c32",
            f"-d{seconds}s",
            "--latency",
            "-s",
            str(script),
            f"http://127.0.0.1:{port}",
            "--",
            str(tokens),
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=seconds + 60,
    )
    rate = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
    p99 = re.search(r"99%\s+([\d.]+)(us|ms|s)", done.stdout)
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", done.stdout)
    if rate is None or p99 is None:
        raise SystemExit(f"wrk said nothing of use: {done.stdout} {done.stderr}")
    scale = {"us": 1e-3, "ms": 1.0, "s": 1e3}[p99[2]]
    return float(rate[1]), float(p99[1]) * scale, int(bad[1]) if bad else 0


def prime(port: int, tokens: list[str]) -> list[str]:
    """Let every device poll once, as it would; returns each one's ETag."""
    etags = [""] * len(tokens)

    def take(n: int, answer: Answer) -> None:
        if answer.status != 200:
            raise SystemExit(f"a first poll was answered {answer.status}: {answer.body!r}")
        etags[n] = answer.headers[b"etag"].decode()

    head = "GET /device/v1/directive HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer "
    took = ask_all(port, [f"{head}{t}\r\n\r\n".encode() for t in tokens], take)
    print(f"  {len(tokens):,} devices polled for the first time in {took:.1f} s", flush=True)
    return etags


def measure(bench: Bench) -> None:
    if shutil.which("wrk") is None:
        raise SystemExit("this needs wrk, a load generator: install the Debian package wrk")
    devices = 5_000 if bench.quick else 100_000
    rounds, seconds = (2, 3) if bench.quick else (5, 10)
    with server(token_lifetime_s=3600) as stage:
        publish(stage, "1.0.0")
        stage.pilotwave("groups", "create", "all", "--selector", "site")
        stage.pilotwave("assign", "--yes", MODEL, "1.0.0", "--group", "all")
        names = add_devices(stage.root / "data", devices)
        time.sleep(1)
        port = int(stage.url.rsplit(":", 1)[1])
        key_file = next((stage.root / "data" / "keys").glob("*token*"))
        tokens = read_tokens(key_file, names)
        etags = prime(port, tokens)
        file, script = stage.root / "tokens.txt", stage.root / "polls.lua"
        file.write_text("".join(f"{t} {e}\n" for t, e in zip(tokens, etags, strict=True)))
        script.write_text(LUA)
        bare_port = free_port()
        bare = subprocess.Popen(
            [sys.executable, str(Path(__file__).parent / "_bare.py"), str(bare_port)]
        )
        try:
            time.sleep(1)
            ours, theirs, tails, errors = [], [], [], 0
            for _ in range(rounds):
                rate, _, _ = load(bare_port, script, file, seconds)
                theirs.append(rate)
                rate, p99, bad = load(port, script, file, seconds)
                ours.append(rate)
                tails.append(p99)
                errors += bad
        finally:
            bare.terminate()
            bare.wait()
        ratio = median([a / b for a, b in zip(ours, theirs, strict=True)])
        bench.figure("devices", devices)
        bench.figure("polls_per_s", median(ours))
        bench.figure("bare_asgi_per_s", median(theirs))
        bench.figure("ratio", ratio, "at least 0.6", ratio >= 0.6)
        bench.figure("poll_p99_ms", median(tails))
        bench.figure("answers_that_were_errors", errors, "0", errors == 0)
        bench.figure("server_rss_mb", memory_kb(stage.processes[0].pid, "VmRSS") / 1024)


if __name__ == "__main__":
    main("polls", measure)
