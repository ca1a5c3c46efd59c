"""The web page put together: its routers, in the order in which their paths are tried."""

from __future__ import annotations

from pilotwave_server.context import Context
from pilotwave_server.dashboard import (
    account_page,
    audit_page,
    bulk_page,
    device_pages,
    fleet_page,
    group_pages,
    learning_pages,
    model_pages,
    oidc,
    policy_pages,
    rollout_pages,
    settings_pages,
    signing_in,
    static,
)


def install(context: Context) -> None:
    context.routers += [
        static.router,
        oidc.router,
        signing_in.router,
        account_page.router,
        fleet_page.router,
        rollout_pages.router,
        bulk_page.router,
        device_pages.router,
        model_pages.router,
        group_pages.router,
        learning_pages.router,
        policy_pages.router,
        audit_page.router,
        settings_pages.router,
    ]
