"""The web page put together: its routers, in the order in which their paths are tried."""

from __future__ import annotations

from pilotwave_server.dashboard import (
    device_pages,
    fleet_page,
    rollout_pages,
    signing_in,
    static,
)

routers = [
    static.router,
    signing_in.router,
    fleet_page.router,
    rollout_pages.router,
    device_pages.router,
]
