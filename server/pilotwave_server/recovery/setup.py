"""Let a server notice that devices are ahead of it, as after a restored backup."""

from __future__ import annotations

from pilotwave_server.context import Context
from pilotwave_server.recovery.sentences import read_ahead
from pilotwave_server.recovery.worker import Recovery
from pilotwave_server.registry.trust import TrustStore


def install(context: Context) -> None:
    """Look from the server's start to its end."""
    recovery = Recovery(context.db, context.get(TrustStore), context.clock)
    context.put(recovery)
    context.workers.append(recovery)
    context.metrics.add_reading(lambda: read_ahead(context.db))
