"""Put experiments with training plans into a running server."""

from __future__ import annotations

from pilotwave_server.blobs.port import BlobStore
from pilotwave_server.context import Context
from pilotwave_server.learning.advance import advance_all
from pilotwave_server.learning.dropped import stop_dropped
from pilotwave_server.learning.finish import finish_all
from pilotwave_server.learning.masked.groups import go_on_all
from pilotwave_server.learning.pieces import forget_old
from pilotwave_server.learning.routes import router
from pilotwave_server.workers import Periodic

LOOK_S = 5.0


def install(context: Context) -> None:
    """Answer operators, open waves, and end the phases and rounds whose time is over."""

    def look() -> None:
        stop_dropped(context.db, now=context.clock())
        advance_all(context.db, now=context.clock())
        go_on_all(context.db, now=context.clock())
        finish_all(context.db, context.get(BlobStore), now=context.clock())
        forget_old(context.db, now=context.clock())

    context.routers.append(router)
    context.workers.append(Periodic("learning", look, interval_s=LOOK_S, can_wait=True))
