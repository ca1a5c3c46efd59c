"""Many WebSockets at one server, spoken for by one small process."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import time

import httpx
from _bench import MODEL, Bench, memory_kb, publish
from _fleet import add_devices, read_tokens

from demo.stage import Stage

OPENING_AT_ONCE = 200
PATIENCE_S = 180.0
HANDSHAKE = (
    "GET /device/v1/push HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
    "Connection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
    "Sec-WebSocket-Version: 13\r\nAuthorization: Bearer {token}\r\n\r\n"
)


class Line(asyncio.Protocol):
    """One device's end: it keeps the moment of its first call."""

    def __init__(self, request: bytes) -> None:
        self.request = request
        self.opened: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.called: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.called_at = 0.0
        self.calls = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        transport.write(self.request)  # type: ignore[attr-defined]  # a TCP transport has it

    def data_received(self, data: bytes) -> None:
        if not self.opened.done():
            self.opened.set_result(data)
            _, _, data = data.partition(b"\r\n\r\n")
        if b"poll " in data:
            self.called_at = self.called_at or time.monotonic()
            if not self.called.done():
                self.called.set_result(None)
            self.calls += data.count(b"poll ")

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.opened.done():
            self.opened.set_result(b"")


def open_files(count: int) -> None:
    """Have enough descriptors here and in what is started from here."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count:
        raise SystemExit(f"{count} open files are needed, {hard} are allowed: raise `ulimit -Hn`")
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))


def crowd(bench: Bench, stage: Stage, count: int) -> None:
    """Open `count` channels and measure them."""
    publish(stage, "1.0.0")
    stage.pilotwave("groups", "create", "all", "--selector", "site!=nowhere")
    names = add_devices(stage.root / "data", count)
    tokens = read_tokens(stage.root / "data" / "keys" / "device-tokens.json", names)
    time.sleep(1.5)  # until the server has seen the devices
    asyncio.run(_crowd(bench, stage, [HANDSHAKE.format(token=t).encode() for t in tokens]))


async def _crowd(bench: Bench, stage: Stage, requests: list[bytes]) -> None:
    loop, count = asyncio.get_running_loop(), len(requests)
    port = int(stage.url.rsplit(":", 1)[1])
    server = stage.processes[0].pid
    lines: list[Line] = []
    turns = asyncio.Semaphore(OPENING_AT_ONCE)

    async def opened(request: bytes) -> None:
        async with turns:
            for _ in range(20):
                _, line = await loop.create_connection(lambda: Line(request), "127.0.0.1", port)
                answer = await line.opened
                if answer.startswith(b"HTTP/1.1 101"):
                    lines.append(line)
                    return
                await asyncio.sleep(1)  # too many at once: it is told to come again
            raise SystemExit(f"a device was let in by no try: {answer[:200]!r}")

    # the records of devices are there with and without push: known before memory is read
    await asyncio.gather(*(_poll(port, request) for request in requests[:1]))
    await _all_poll(port, requests)
    await asyncio.sleep(2)
    before = memory_kb(server, "Pss")
    began = time.monotonic()
    await asyncio.gather(*(opened(request) for request in requests))
    took = time.monotonic() - began
    await asyncio.sleep(3)
    each = (memory_kb(server, "Pss") - before) / count
    bench.say(f"{count:,} devices with a WebSocket at one server process")
    bench.figure("crowd_connections", len(lines))
    bench.figure("crowd_opened_per_s", count / took)
    bench.figure("crowd_memory_kb_per_connection", each)
    bench.figure("crowd_server_pss_mb", memory_kb(server, "Pss") / 1024)
    told = await asyncio.to_thread(_assign, stage)
    with contextlib.suppress(TimeoutError, asyncio.TimeoutError):
        await asyncio.wait_for(asyncio.gather(*(line.called for line in lines)), PATIENCE_S)
    heard = sorted(line.called_at - told for line in lines if line.called_at)
    bench.figure("crowd_heard", len(heard), f"all {count}", len(heard) == count)
    bench.figure("crowd_first_heard_s", heard[0])
    bench.figure("crowd_last_heard_s", heard[-1])
    bench.figure("crowd_calls_per_device_max", max(line.calls for line in lines))
    for line in lines:
        line.transport.close()


async def _all_poll(port: int, requests: list[bytes]) -> None:
    for begin in range(0, len(requests), 100):
        await asyncio.gather(*(_poll(port, one) for one in requests[begin : begin + 100]))


async def _poll(port: int, request: bytes) -> None:
    """Let a device poll once, over a connection of its own."""
    token = request.partition(b"Bearer ")[2].strip()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        b"GET /device/v1/directive HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
        b"Authorization: Bearer " + token + b"\r\n\r\n"
    )
    await reader.read()
    writer.close()


def _assign(stage: Stage) -> float:
    """Give everybody a version, as the command line does; return when the word was sent."""
    token = stage.environment()["PILOTWAVE_TOKEN"]
    headers = {"Authorization": f"Bearer {token}"}
    with httpx.Client(base_url=f"{stage.url}/api/v1", headers=headers, timeout=120) as api:
        told = time.monotonic()
        path = f"/groups/all/baselines/{MODEL}"
        api.put(path, json={"version": "1.0.0"}).raise_for_status()
    return told
