"""Twenty real agents behind a real nginx: what an update costs the site's uplink; then the cache
is poisoned, and then it dies under way. Needs nginx."""

from __future__ import annotations

import random
import shutil
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from _bench import DIGITS, MODEL, Bench, enrol, main, publish, server

from demo.stage import BIN, Stage
from tests.peers.gateway import NGINX, Gateway
from tests.peers.proxy import Proxy

SETTINGS = """
mirrors = ["{mirror}"]
probation_s = 0
keep_free_mb = 0
network_timeout_s = 60
[probe]
kind = "exec"
command = ["true"]
interval_s = 0.1
"""


class Site:
    """Devices, their gateway, and the line to the server, on which every byte is counted."""

    def __init__(self, stage: Stage, count: int, size: int) -> None:
        self.stage, self.size = stage, size
        self.uplink = Proxy(int(stage.url.rpartition(":")[2]))
        self.gateway = Gateway(self.uplink.url, stage.root / "gateway")
        self.devices = [f"cam-{n}" for n in range(count)]
        self.chance = random.Random(7)
        self.folders: dict[str, Path] = {}
        stage.pilotwave("groups", "create", "all", "--selector", "site=bench")
        extra = SETTINGS.format(mirror=self.gateway.url)
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda d: self._enrol(d, extra), self.devices))

    def _enrol(self, device: str, extra: str) -> None:
        enrol(self.stage, device, server_url=self.uplink.url, extra=extra)

    def order(self, version: str, example: str) -> int:
        """Publish a version with `size` bytes of weights, order it; return its bytes in all."""
        folder = self.folders[version] = self.stage.root / f"v{version}"
        shutil.copytree(DIGITS / example, folder)
        (folder / "weights.bin").write_bytes(self.chance.randbytes(self.size))
        publish(self.stage, version, folder)
        self.stage.pilotwave("assign", "--yes", MODEL, version, "--group", "all")
        return sum(p.stat().st_size for p in folder.iterdir())

    def update(self, devices: list[str]) -> int:
        """Let agents do all that is to be done, at once; return the bytes over the uplink."""
        before = self.uplink.delivered + self.uplink.sent
        with ThreadPoolExecutor(len(devices)) as pool:
            list(pool.map(self._once, devices))
        return self.uplink.delivered + self.uplink.sent - before

    def _once(self, device: str) -> None:
        log = self.stage.root / f"{device}.log"
        for _ in range(5):  # a device that could not do all of it is awake again later
            with log.open("ab") as out:
                words = [str(BIN / "pilotwave-agent"), "once", "--data", device]
                done = subprocess.run(
                    words,
                    stdout=out,
                    stderr=out,
                    cwd=self.stage.root,
                    env=self.stage.environment(),
                    timeout=500,
                )
            if done.returncode == 0:
                return

    def right(self, version: str) -> int:
        """Count the devices that run exactly what was published as `version`."""
        wanted = {p.name: p.read_bytes() for p in self.folders[version].iterdir()}
        return sum(self._served(device) == wanted for device in self.devices)

    def _served(self, device: str) -> dict[str, bytes]:
        link = self.stage.root / device / "models" / MODEL / "current"
        return {p.name: p.read_bytes() for p in link.resolve().iterdir()} if link.exists() else {}

    def well(self) -> int:
        """Count the devices that leave no mirror alone."""
        names = (self.stage.root / d / "mirrors" / "health.json" for d in self.devices)
        return sum(not path.exists() for path in names)

    def forgive(self) -> None:
        """Let the time pass for which devices leave the mirror alone."""
        for device in self.devices:
            shutil.rmtree(self.stage.root / device / "mirrors", ignore_errors=True)


def kill_under_way(site: Site) -> None:
    """End the cache when half of its first file has come."""
    wanted = site.uplink.delivered + site.size // 2
    while site.uplink.delivered < wanted:
        time.sleep(0.005)
    site.gateway.stop()


def measure(bench: Bench) -> None:
    if not NGINX:
        raise SystemExit("site_cache: install nginx first (on Debian: nginx-light)")
    count, size = (6, 4 << 20) if bench.quick else (20, 24 << 20)
    with server(delta_processes=0) as stage:
        site = Site(stage, count, size)
        bench.say(f"{count} agents enrolled, each with the site's gateway for a mirror")
        total = site.order("1.0.0", "1.0.0")
        ratio = site.update(site.devices) / total
        bench.figure("agents", count)
        bench.figure("version_bytes", total)
        bench.figure("uplink_of_one_download", ratio, "at most 1.05", ratio <= 1.05)
        right = site.right("1.0.0")
        bench.figure("agents_that_run_it", right, f"{count}", right == count)
        bench.figure(
            "agents_content_with_the_mirror", site.well(), f"{count}", site.well() == count
        )
        figures(bench, site, "poisoned", poisoned(site))
        site.forgive()
        figures(bench, site, "dead", dead(site))
        site.uplink.close()


def poisoned(site: Site) -> tuple[str, float]:
    """One device fills the cache, every file in it is changed, the others come."""
    total = site.order("1.1.0", "1.1.0")
    site.update(site.devices[:1])
    site.gateway.poison()
    return "1.1.0", site.update(site.devices[1:]) / total


def dead(site: Site) -> tuple[str, float]:
    """The cache ends while all are fetching."""
    total = site.order("1.2.0", "1.3.0")
    killer = threading.Thread(target=kill_under_way, args=(site,))
    killer.start()
    uplink = site.update(site.devices)
    killer.join()
    return "1.2.0", uplink / total


def figures(bench: Bench, site: Site, name: str, found: tuple[str, float]) -> None:
    version, ratio = found
    right, count = site.right(version), len(site.devices)
    bench.figure(f"{name}_agents_that_run_the_right_bytes", right, f"{count}", right == count)
    bench.figure(f"{name}_uplink_in_downloads", ratio)


if __name__ == "__main__":
    main("site_cache", measure)
