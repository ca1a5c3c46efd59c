"""A real agent fetches from the bucket itself, and the server that sent no byte counts them."""

from __future__ import annotations

import random
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.buckets import S3Server
from tests.e2e.fleet_of_one import fleet_of_one, wait_until
from tests.peers.counting import CountingProxy
from tests.peers.shelf import model_bytes

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(300), pytest.mark.slow]


def test_a_device_fetches_past_the_server(moto: S3Server, tmp_path: Path) -> None:
    bucket = moto.bucket()
    server = {
        "PILOTWAVE_POLL_INTERVAL_S": "1",
        "PILOTWAVE_CHECK_IN_INTERVAL_S": "2",
        "PILOTWAVE_DELTA_PROCESSES": "0",
        "PILOTWAVE_BLOBS": bucket.url,
        **moto.environment,
    }
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.onnx").write_bytes(model_bytes(1))
    (folder / "noise.bin").write_bytes(random.Random(1).randbytes(3_000_000))
    size = sum(path.stat().st_size for path in folder.iterdir())
    proxies: list[CountingProxy] = []

    def link(url: str) -> str:
        proxies.append(CountingProxy(url))
        return running.enter_context(proxies[0].running()).url

    with ExitStack() as running:
        top = f'download_hosts = ["{moto.url}"]\n'
        fleet = running.enter_context(fleet_of_one(tmp_path, top=top, server=server, link=link))
        fleet.stage.pilotwave("models", "create", "detector", "--publisher", "keys/publisher.pem")
        fleet.publish("detector", "1.0.0", folder)
        fleet.assign("detector", "1.0.0")
        fleet.until("detector", "1.0.0", "healthy")
        assert proxies[0].came["blobs"] == 0
        found: list[dict[str, int]] = []

        def counted() -> bool:
            found[:] = fleet.stage.ask("bytes", "--by", "version")
            return bool(found) and found[0]["sent_full"] >= size

        wait_until(counted, lambda: f"{size} bytes; the server says {found}")
        assert found[0]["sent_full"] == size
