"""A site's gateway: real nginx on docker/site-gateway.conf.template, before a real server."""

from __future__ import annotations

import json
import random
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from pilotwave_agent.host.disk import Disk
from pilotwave_agent.net.download import Downloader, Limits
from pilotwave_agent.net.http import Channel
from pilotwave_agent.net.mirrors import Mirrors
from pilotwave_protocol.digest import EMPTY_SHA256, sha256_hex
from pilotwave_protocol.manifest import FileEntry
from pilotwave_server.blobs.port import BlobStore
from pilotwave_server.context import Context
from pilotwave_server.deltas import jobs
from pilotwave_server.deltas.needs import Pair
from pilotwave_server.deltas.tables import DeltaRow
from tests.peers.gateway import NGINX, Gateway
from tests.peers.proxy import Proxy
from tests.server.device_api.peer import SimulatedDevice, code_of
from tests.server.fleet_fixtures import Fleet, fleet, only_sqlite, published
from tests.server.registry.registry import onnx

__all__ = ["fleet", "published"]
pytestmark = [only_sqlite, pytest.mark.skipif(not NGINX, reason="nginx is not installed")]

MODEL = onnx("large", weights=random.Random(5).randbytes(4_000_000))
SECRET = onnx("detector 1.1.0")
OURS, OTHER = sha256_hex(MODEL), sha256_hex(SECRET)
BLOB = f"/blobs/{OURS}"
ENTRY = FileEntry("model.onnx", len(MODEL), OURS)


@dataclass
class Site:
    """A gateway, the uplink from it to the server, and the first device."""

    fleet: Fleet
    gateway: Gateway
    uplink: Proxy
    cam: SimulatedDevice
    http: httpx.Client

    def get(self, path: str, *, token: str = "", **headers: str) -> httpx.Response:
        """Ask the gateway."""
        if token:
            headers["Authorization"] = f"Bearer {token}"
        return self.http.get(path, headers=headers)

    def link(self, path: str = BLOB) -> str:
        answer = self.get(f"/device/v1/links{path}", token=self.cam.token)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["path"])

    @property
    def bytes(self) -> int:
        """How many bytes crossed the uplink, both ways."""
        return self.uplink.delivered + self.uplink.sent

    def downloader(self, folder: Path, token: str) -> Downloader:
        """An agent's own fetching, with the gateway for a mirror."""
        channel = Channel(self.uplink.url, gap_s=60)
        mirrors = Mirrors(
            [self.gateway.url],
            disk=Disk(),
            path=folder / "mirrors" / "health.json",
            connect=partial(Channel, gap_s=60),
        )
        limits = Limits(keep_free_bytes=0)
        return Downloader(Disk(), folder / "blobs", channel, token, limits, mirrors=mirrors)


@pytest.fixture
def site(fleet: Fleet, server: Any, tmp_path: Path) -> Iterator[Site]:
    fleet.registry.publish("detector", "2.0.0", files={"model.onnx": MODEL})
    fleet.group("all", "*")
    fleet.assign("all", "2.0.0")
    uplink = Proxy(int(server.url.rpartition(":")[2]))
    gateway = Gateway(uplink.url, tmp_path / "gateway")
    with httpx.Client(base_url=gateway.url, timeout=60) as http:
        yield Site(fleet, gateway, uplink, fleet.device(), http)
    gateway.stop()
    uplink.close()


def test_tokens_and_links_lead_to_the_same_bytes_which_are_fetched_once(site: Site) -> None:
    first = site.get(BLOB, token=site.cam.token)
    assert (first.status_code, first.content) == (200, MODEL)
    assert first.headers["etag"] == f'"{OURS}"'
    before, link = site.bytes, site.link()
    assert site.get(BLOB, token=site.cam.token).content == MODEL
    assert site.http.get(link).content == MODEL
    assert site.http.get(link).headers["x-cache"] == "HIT"
    part = site.http.get(link, headers={"Range": "bytes=1000000-"})
    assert (part.status_code, part.content) == (206, MODEL[1_000_000:])
    assert part.headers["content-range"] == f"bytes 1000000-{len(MODEL) - 1}/{len(MODEL)}"
    middle = site.get(BLOB, token=site.cam.token, Range="bytes=262100-262200")
    assert (middle.status_code, middle.content) == (206, MODEL[262_100:262_201])
    head = site.http.head(link)
    assert (head.status_code, head.headers["content-length"]) == (200, str(len(MODEL)))
    assert site.get(BLOB, token=site.cam.token, Range="bytes=9000000-").status_code == 416
    assert site.bytes - before < 20_000


def test_who_may_read_is_asked_though_the_bytes_lie_in_the_cache(
    site: Site, clock: Any, viewer_token: str
) -> None:
    token, link = site.cam.token, site.link()
    secret = link.partition("?link=")[2]
    assert site.get(BLOB, token=token).status_code == 200
    # an operator brings a blob into the cache that is not for the device
    assert site.get(f"/blobs/{OTHER}", token=viewer_token).status_code == 200
    forged = secret[:-1] + ("A" if secret[-1] != "A" else "B")
    delta = f"/deltas/{EMPTY_SHA256}/{OURS}"
    refused = [
        (BLOB, "", 401),
        (f"{BLOB}?link=", "", 401),
        (f"{BLOB}?link=x", "", 401),
        (f"{BLOB}?link={forged}", "", 401),
        (f"{BLOB}?link={token}", "", 401),
        (BLOB, secret, 401),
        (BLOB, "x" + token[1:], 401),
        (f"{BLOB}?link={secret}", "x", 401),  # the token is the one that counts
        (f"/blobs/{OTHER}?link={secret}", "", 401),
        (f"{delta}?link={secret}", "", 401),
        (f"/blobs/{OTHER}", token, 403),
    ]
    for path, bearer, status in refused:
        assert site.get(path, token=bearer).status_code == status, path
        assert site.get(path, token=bearer, Range="bytes=0-9").status_code == status, path
    clock.advance(seconds=301)
    assert site.http.get(link).status_code == 401
    assert site.get(BLOB, token=token).status_code == 200
    clock.advance(seconds=600)
    assert site.get(BLOB, token=token).status_code == 401
    assert site.cam.check_in().status_code == 200
    link = site.link()
    assert site.http.get(link).status_code == 200
    site.fleet.act("cam-1", "revoke")
    assert site.http.get(link).status_code == 401
    assert site.get(BLOB, token=site.cam.token).status_code == 401


def raw(site: Site, target: str, *more: str) -> bytes:
    """Ask for a target that no client would send as it is."""
    with socket.create_connection(("127.0.0.1", site.gateway.port), timeout=60) as line:
        lines = [f"GET {target} HTTP/1.1", "Host: x", "Connection: close", *more, "", ""]
        line.sendall("\r\n".join(lines).encode())
        return b"".join(iter(lambda: line.recv(65536), b""))


def test_no_spelling_of_a_path_leads_round_the_question(site: Site, viewer_token: str) -> None:
    """What is asked about is what is given out, however the target is written."""
    assert site.get(f"/blobs/{OTHER}", token=viewer_token).status_code == 200
    assert site.get(BLOB, token=site.cam.token).status_code == 200
    leave = site.link()
    bearer = f"Authorization: Bearer {site.cam.token}"
    wanted = f"/blobs/{OTHER}"
    for target in [
        f"/blobs/../blobs/{OTHER}",
        f"//blobs//{OTHER}",
        f"/blobs/{OURS}/../{OTHER}",
        f"/blobs/{OURS}/..%2f{OTHER}",
        f"{leave}/../{OTHER}",
        f"/blobs/%{ord(OTHER[0]):02x}{OTHER[1:]}",
        f"http://x{wanted}",
        f"{wanted}#{leave}",
        f"{wanted}?x={BLOB}",
        "/may-read",
        f"/may-read{BLOB}",
        f"/device/v1/may-read/../../../{wanted[1:]}",
    ]:
        for more in [(), (bearer,)]:
            answer = raw(site, target, *more)
            assert SECRET not in answer, (target, more)
            if not target.startswith(BLOB):
                assert answer.split()[1] in (b"400", b"401", b"403", b"404"), (target, more)
    other = raw(site, f"{BLOB}?x=/blobs/{OTHER}", bearer, "X-Original-URI: /x", "Upgrade: y")
    assert other.endswith(MODEL[-1000:])


def test_only_what_devices_need_is_let_through(site: Site, admin_token: str) -> None:
    for path in (
        "/",
        "/api/v1/devices",
        "/healthz",
        "/login",
        "/metrics",
        f"/blobs/{OURS.upper()}",
    ):
        assert site.get(path, token=admin_token).status_code == 404, path
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        answer = site.http.request(method, BLOB, headers={"Authorization": f"Bearer {admin_token}"})
        assert answer.status_code in (401, 403, 405), method


def test_check_ins_directives_and_metadata_pass_through(site: Site) -> None:
    there = SimulatedDevice("cam-1", site.http, key=site.cam.key, seq=site.cam.seq)
    assert there.check_in().status_code == 200
    assert there.runs() == {"detector": "2.0.0"}
    assert there.poll().status_code == 304
    found = [site.get("/tuf/metadata/1.root.json") for _ in range(2)]
    assert [f.headers["x-cache"] for f in found] == ["MISS", "HIT"]
    assert found[0].content == found[1].content
    fresh = [site.get("/tuf/metadata/timestamp.json").headers["x-cache"] for _ in range(2)]
    assert "HIT" not in fresh
    assert site.get("/tuf/metadata/99.root.json").status_code == 404
    newcomer = SimulatedDevice("cam-2", site.http)
    assert newcomer.enrol(site.fleet.code()).status_code == 201


def test_a_server_that_is_away_is_told_from_a_cache_that_fails(site: Site) -> None:
    assert site.get(BLOB, token=site.cam.token).status_code == 200
    site.uplink.down = True
    site.uplink.cut()
    answer = site.get(BLOB, token=site.cam.token)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    site.uplink.down = False
    assert site.get(BLOB, token=site.cam.token).status_code == 200


def test_of_several_origins_one_is_enough(site: Site, server: Any, tmp_path: Path) -> None:
    second = Proxy(int(server.url.rpartition(":")[2]))
    gateway = Gateway(site.uplink.url, tmp_path / "two", others=[second.url])
    with httpx.Client(base_url=gateway.url, timeout=60) as http:
        cam = SimulatedDevice("cam-1", http, key=site.cam.key, seq=site.cam.seq)
        for _ in range(4):
            assert cam.check_in().status_code == 200
        assert site.uplink.sent
        assert second.sent
        for away, back in ((site.uplink, second), (second, site.uplink)):
            back.down = False
            time.sleep(2.5)  # it was left out for a second, which nginx counts in whole ones
            away.down = True
            away.cut()
            for start in range(0, 900_000, 300_000):
                headers = {"Authorization": f"Bearer {cam.token}", "Range": f"bytes={start}-"}
                assert http.get(BLOB, headers=headers).content == MODEL[start:]
            assert cam.poll().status_code in (200, 304)
    gateway.stop()
    second.close()


def together(jobs: list[Callable[[], None]]) -> None:
    with ThreadPoolExecutor(len(jobs)) as pool:
        for job in [pool.submit(job) for job in jobs]:
            job.result()


def downloaders(site: Site, tmp_path: Path, count: int) -> list[Downloader]:
    devices = [site.cam, *(site.fleet.device(f"cam-{n}") for n in range(2, 6))]
    return [
        site.downloader(tmp_path / f"d{n}", devices[n % len(devices)].token) for n in range(count)
    ]


def all_right(found: list[Downloader]) -> None:
    for each in found:
        each.mirrors.close()
        each.channel.close()
        assert (each.blobs / OURS).read_bytes() == MODEL


def test_twenty_downloads_at_once_cost_the_uplink_one(site: Site, tmp_path: Path) -> None:
    found = downloaders(site, tmp_path, 20)
    parts = random.Random(6)
    for each in found[::3]:  # some go on from what they have
        each.blobs.mkdir(parents=True)
        (each.blobs / f"{OURS}.part").write_bytes(MODEL[: parts.randrange(1, len(MODEL))])
    before = site.bytes
    together([lambda each=each: each.fetch([ENTRY]) for each in found])  # type: ignore[misc]  # binds
    all_right(found)
    assert site.bytes - before <= 1.05 * len(MODEL)
    assert all(each.mirrors.usable() for each in found)


def test_a_poisoned_and_then_dead_cache_stops_nobody(site: Site, tmp_path: Path) -> None:
    found = downloaders(site, tmp_path, 6)
    found[0].fetch([ENTRY])
    assert site.gateway.poison() > 10
    for each in found[1:4]:
        each.fetch([ENTRY])
        assert each.mirrors.usable() == []
        kept = json.loads((each.blobs.parent / "mirrors" / "health.json").read_text())
        assert "not the ones that were signed" in kept[site.gateway.url]["why"]
    for each in found[4:]:
        each.limits = Limits(keep_free_bytes=0, max_rate=4_000_000)

    def kill() -> None:
        while not all((each.blobs / f"{OURS}.part").exists() for each in found[4:]):
            time.sleep(0.01)
        site.gateway.stop()

    together([kill, *(lambda each=each: each.fetch([ENTRY]) for each in found[4:])])  # type: ignore[misc]  # binds
    all_right(found)


def test_deltas_are_kept_like_blobs(site: Site, context: Context) -> None:
    """With a delta of any bytes: what is in it is the device's to judge."""
    delta, path = b"delta" * 1000, f"/deltas/{EMPTY_SHA256}/{OURS}"
    with context.db.write() as session:
        pair = Pair("detector", EMPTY_SHA256, OURS, len(MODEL))
        jobs.note(session, [pair], now=context.clock())
    assert code_of(site.get(path, token=site.cam.token)) == (404, "delta_missing")
    with context.db.write() as session:
        row = session.get(DeltaRow, (EMPTY_SHA256, OURS))
        assert row is not None
        row.state, row.delta_sha256, row.size = (
            "ready",
            context.get(BlobStore).put(delta),
            len(delta),
        )
    link = site.link(path)
    assert [site.http.get(link).headers["x-cache"] for _ in range(2)] == ["MISS", "HIT"]
    assert site.get(path, token=site.cam.token).content == delta
    assert site.get(path).status_code == 401
