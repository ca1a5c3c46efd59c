"""Put tokens, people and their sessions into a running server."""

from __future__ import annotations

from pilotwave_server.context import Context
from pilotwave_server.operator_api import people_routes, routes
from pilotwave_server.operators.authenticate import OperatorTokens
from pilotwave_server.operators.sessions import PersonSessions
from pilotwave_server.routing import TokenCheck
from pilotwave_server.workers import Periodic

LAST_USED_S = 60


def install(context: Context) -> None:
    """Have it written down when tokens were last used."""
    tokens = OperatorTokens(context.db)
    context.put(tokens)
    context.put(TokenCheck(lambda token: tokens.authenticate(token, now=context.clock())))
    context.put(PersonSessions(context.db))
    context.routers += [routes.router, people_routes.router]
    context.workers.append(
        Periodic("last-used", tokens.flush, interval_s=LAST_USED_S, at_stop=True)
    )
