"""What a site is allowed is shared by the server processes that live, whatever host they are on."""

from __future__ import annotations

from pilotwave_server.db import Database
from pilotwave_server.downloads.admission import Admission
from pilotwave_server.downloads.counting import Counting
from pilotwave_server.downloads.sites import SiteLimit
from pilotwave_server.metrics import Metrics
from tests.server.fleet_fixtures import only_sqlite

pytestmark = only_sqlite


def test_a_site_s_rate_is_divided_by_the_living_and_comes_back(db: Database) -> None:
    living = 1
    desk = Admission(
        counting=Counting(db),
        metrics=Metrics(),
        most=100,
        per_device=4,
        waiting=10,
        processes=2,
        of_fleet=lambda: living,
        total_kbps=8000,
    )
    limits = {"lab": SiteLimit(max_rate_kbps=800, max_downloads=8)}

    def rates() -> list[float]:
        return [pace.rate for pace in desk.paces("lab", "cam-1")]

    desk.limit(limits)
    assert rates() == [500_000, 100_000]
    living = 4
    assert rates() == [500_000, 25_000], "the machine's own rate is for its own processes"
    assert desk.paces("elsewhere", "cam-2")[0].rate == 500_000
    living = 1
    assert rates() == [500_000, 100_000]
