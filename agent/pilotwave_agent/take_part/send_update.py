"""Send an update of a training plan in pieces: where the line breaks, it goes on behind what the
server has. A server that knows of no pieces is sent the whole."""

from __future__ import annotations

from collections.abc import Callable

from pilotwave_agent.net.http import BadAnswer, Channel, Unreachable
from pilotwave_agent.net.server_api import ServerSaid, send_bytes
from pilotwave_protocol import strictjson
from pilotwave_protocol.digest import sha256_hex
from pilotwave_protocol.errors import BadMessage, ProtocolError
from pilotwave_protocol.fields import Fields
from pilotwave_protocol.learning.update import PIECE_BYTES, Piece, join_piece, split_update

_PATH = "/device/v1/updates"
_TRIES = 3
"""So often without a byte more, and the next check-in goes on."""
_UNKNOWN_ROUTE = (404, 405)
_BEGIN_ANEW = ("offset_mismatch", "upload_unknown")


class NetworkHeld(Unreachable):
    """The network may not be used for updates any more; the next check-in looks again."""

    code = "network_held"


def send_update(
    channel: Channel, token: str, update: bytes, *, held: Callable[[], str] = lambda: ""
) -> None:
    """Send it until the server has it; `held` says before each piece why the network may not be
    used now, if so. Raises `ServerSaid`, `Unreachable`, `BadAnswer`."""
    envelope, numbers = split_update(update)
    furthest, tries = -1, 0
    while True:
        try:
            offset = _begin(channel, token, envelope, len(numbers))
            if offset is None:
                send_bytes(channel, token, _PATH, update)
                return
            if offset > furthest:
                furthest, tries = offset, 0
            _send_rest(channel, token, numbers, offset, held)
            return
        except (Unreachable, ServerSaid) as e:
            tries += 1
            passing = isinstance(e, Unreachable) or e.problem in _BEGIN_ANEW
            if not passing or tries >= _TRIES or isinstance(e, NetworkHeld):
                raise


def _begin(channel: Channel, token: str, envelope: bytes, size: int) -> int | None:
    """Return how many bytes the server has; None: it knows of no pieces."""
    try:
        answer = send_bytes(channel, token, f"{_PATH}/begin", envelope)
    except ServerSaid as e:
        if e.status in _UNKNOWN_ROUTE:
            return None
        raise
    try:
        f = Fields(strictjson.loads(answer, max_bytes=1 << 10), "update", BadMessage)
        return f.integer("offset", high=size)
    except ProtocolError as e:
        raise BadAnswer(f"update: {e}") from e


def _send_rest(
    channel: Channel, token: str, numbers: bytes, offset: int, held: Callable[[], str]
) -> None:
    digest = sha256_hex(numbers)
    for at in range(offset, len(numbers), PIECE_BYTES):
        if why := held():
            raise NetworkHeld(why)
        piece = Piece(digest, at, numbers[at : at + PIECE_BYTES])
        send_bytes(channel, token, f"{_PATH}/pieces", join_piece(piece))
