"""What one running server shares between its requests, gathered in one place."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pilotwave_server.clock import Clock
from pilotwave_server.db import Database
from pilotwave_server.settings import Settings

if TYPE_CHECKING:
    from pilotwave_server.api_limits import ApiLimits
    from pilotwave_server.blobs.access import BlobGate
    from pilotwave_server.blobs.filesystem import FileBlobs
    from pilotwave_server.device_api.setup import DeviceApi
    from pilotwave_server.device_api.tokens import DeviceTokens
    from pilotwave_server.device_api.writer import CheckInWriter
    from pilotwave_server.downloads.admission import Admission
    from pilotwave_server.events.hub import Hub
    from pilotwave_server.events.settled import Settled
    from pilotwave_server.fleet.state import FleetState
    from pilotwave_server.metrics import Metrics
    from pilotwave_server.operators.authenticate import OperatorTokens
    from pilotwave_server.operators.sessions import PersonSessions
    from pilotwave_server.pacing import Pacing
    from pilotwave_server.registry.trust import TrustStore
    from pilotwave_server.workers import Worker


@dataclass
class Context:
    """A server's state, made once per process by `app.create_app`."""

    settings: Settings
    db: Database
    clock: Clock
    metrics: Metrics
    operators: OperatorTokens
    people: PersonSessions
    blobs: FileBlobs
    pacing: Pacing
    api_limits: ApiLimits
    blob_gates: list[BlobGate] = field(default_factory=list)
    workers: list[Worker] = field(default_factory=list)
    # called before open connections are waited for: answers without end have to end
    closing: list[Callable[[], None]] = field(default_factory=list)
    # Put there when the server starts, before its workers do.
    loop: asyncio.AbstractEventLoop = field(init=False)
    # Put there by the slices' `setup.install`, in this order.
    trust: TrustStore = field(init=False)
    downloads: Admission = field(init=False)
    limits_changed: Callable[[], object] = field(init=False)
    fleet: FleetState = field(init=False)
    tokens: DeviceTokens = field(init=False)
    checkins: CheckInWriter = field(init=False)
    devices: DeviceApi = field(init=False)
    settled: Settled = field(init=False)
    events: Hub = field(init=False)
