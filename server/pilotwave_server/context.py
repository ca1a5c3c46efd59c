"""What one running server shares between its requests, gathered in one place. It knows no slice."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar, cast

from fastapi import APIRouter, Request

from pilotwave_server.api_limits import ApiLimits
from pilotwave_server.clock import Clock
from pilotwave_server.db import Database
from pilotwave_server.keystore.port import KeyStore
from pilotwave_server.metrics import Metrics
from pilotwave_server.pacing import Pacing
from pilotwave_server.settings import Settings
from pilotwave_server.workers import Worker

Part = TypeVar("Part")


@dataclass
class Context:
    """A server's state, made once per process by `app.create_app`.

    What a slice keeps between requests it puts here itself, in its `setup.install`; its routes, and
    the slices above it, ask for it by its class: `context.get(FleetState)`.
    """

    settings: Settings
    db: Database
    keys: KeyStore
    clock: Clock
    metrics: Metrics
    pacing: Pacing
    api_limits: ApiLimits
    routers: list[APIRouter] = field(default_factory=list)
    workers: list[Worker] = field(default_factory=list)
    # called before open connections are waited for: answers without end have to end
    closing: list[Callable[[], None]] = field(default_factory=list)
    # Put there when the server starts, before its workers do.
    loop: asyncio.AbstractEventLoop = field(init=False)
    _parts: dict[type[object], object] = field(init=False, repr=False, default_factory=dict)

    def put(self, part: object, *, kind: type[object] | None = None) -> None:
        """Have `part` found under its class, or under the protocol `kind` that it follows."""
        self._parts[kind or type(part)] = part

    def get(self, kind: type[Part]) -> Part:
        """Return the one `kind` of this server. LookupError where its slice is yet to be
        installed."""
        if kind not in self._parts:
            raise LookupError(f"no {kind.__name__} here: its slice is installed later, or not")
        return cast(Part, self._parts[kind])


def context_of(request: Request) -> Context:
    """Return the context of the server that was asked."""
    return cast(Context, request.app.state.pilotwave)
