"""Two hosts behind a real PgBouncer in transaction mode."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests import databases, pgbouncer
from tests.servers import ServerProcess

pytestmark = [
    pytest.mark.needs("postgresql"),
    pytest.mark.skipif(pgbouncer.program() is None, reason=pgbouncer.ABSENT),
    pytest.mark.timeout(240),
]
REQUESTS = 400


@pytest.mark.parametrize("direct", [True, False])
def test_two_hosts_share_few_connections_and_nothing_fails(
    request: pytest.FixtureRequest,
    server_factory: Callable[..., ServerProcess],
    tmp_path: Path,
    direct: bool,
) -> None:
    server = request.getfixturevalue("postgres_url")
    with databases.fresh_postgres(server) as url, pgbouncer.running(url) as pooled:
        given = {
            "database_url": pooled,
            "database_pooler": True,
            "database_direct_url": url if direct else "",
            "delta_processes": 0,
            "blobs": tmp_path / "blobs",
            "key_encryption_key": "A" * 43 + "=",
            "metrics_open": True,
            "api_requests_per_second": 0,
        }
        hosts = [server_factory(tmp_path / name, **given) for name in "AB"]
        headers = {"Authorization": f"Bearer {hosts[0].admin_token}"}

        def ask(number: int) -> int:
            at = hosts[number % 2].url
            if number % 4 < 2:
                body = {"name": f"g{number}", "selector": "a=b"}
                return httpx.post(
                    f"{at}/api/v1/groups", json=body, headers=headers, timeout=60
                ).status_code
            return httpx.get(f"{at}/api/v1/groups", headers=headers, timeout=60).status_code

        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(ask, range(REQUESTS)))
        assert {status: answers.count(status) for status in set(answers)} == {
            201: REQUESTS // 2,
            200: REQUESTS // 2,
        }
        for host in hosts:
            assert httpx.get(f"{host.url}/readyz", timeout=30).status_code == 200
            metrics = httpx.get(f"{host.url}/metrics", timeout=30).text
            assert ("pilotwave_listening 1.0" in metrics) == direct
            assert host.stop() == 0
            log = host.log.read_text()
            assert "ERROR" not in log, log[-3000:]
            assert "Error" not in log, log[-3000:]
