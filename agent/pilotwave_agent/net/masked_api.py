"""Ask the server about a masked round, as one device, and send what it waits for."""

from __future__ import annotations

from pilotwave_agent.net.http import BadAnswer, Channel
from pilotwave_agent.net.server_api import ServerSaid, send_bytes
from pilotwave_protocol.errors import ProtocolError
from pilotwave_protocol.learning.masked.step import MAX_STEP_BYTES, Step, parse_step


def masked_step(channel: Channel, token: str, plan: str) -> Step:
    """Ask what the server waits for in the round of the plan with this digest.

    Raises `ServerSaid`, `Unreachable`, `BadAnswer`.
    """
    headers, path = {"Authorization": f"Bearer {token}"}, f"/device/v1/masked/{plan}"
    answer = channel.request("GET", path, headers=headers, max_body=MAX_STEP_BYTES)
    if answer.status != 200:
        raise ServerSaid(answer)
    try:
        return parse_step(answer.body)
    except ProtocolError as e:
        raise BadAnswer(f"masked round: {e}") from e


def send_masked(channel: Channel, token: str, message: bytes) -> None:
    """Send a message of a masked round. Raises `ServerSaid`, `Unreachable`, `BadAnswer`."""
    send_bytes(channel, token, "/device/v1/masked", message)
