"""The plain answer to a check-in: a read token, and how to go on."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from pilotwave_protocol import names, strictjson
from pilotwave_protocol.errors import BadMessage
from pilotwave_protocol.fields import Fields, format_time
from pilotwave_protocol.messages.check_in import MAX_CHECK_IN_BYTES, SMALL_CHECK_IN_BYTES
from pilotwave_protocol.messages.diagnostics import DiagnosticsWish
from pilotwave_protocol.messages.reading import read_reply, read_versions
from pilotwave_protocol.push import PushTerms

NUMBERING = "numbering"
"""In `CheckInReply.accepts`: the registry reads `numbering`, `boot` and `challenge`."""


@dataclass(frozen=True)
class CheckInReply:
    """The server's plain answer to a check-in: a read token and how to go on.

    Times are in seconds, `tuf` holds the newest root and timestamp versions as a hint. `push` is
    None where no channel is offered, `diagnostics` where nobody asks for any.
    """

    token: str
    token_expires_in_s: int
    poll_interval_s: int
    check_in_interval_s: int
    acked_event: int
    tuf: dict[str, int]
    now: datetime
    acked_metric: int = 0
    push: PushTerms | None = None
    max_check_in_bytes: int = SMALL_CHECK_IN_BYTES  # what the registry takes
    accepts: tuple[str, ...] = ()  # fields of later check-ins that this registry can read
    diagnostics: DiagnosticsWish | None = None

    def to_bytes(self) -> bytes:
        """Write the reply."""
        push = None if self.push is None else vars(self.push)
        wish = None if self.diagnostics is None else vars(self.diagnostics)
        said = {**vars(self), "now": format_time(self.now), "push": push, "diagnostics": wish}
        return strictjson.dumps(said)


def parse_check_in_reply(raw: bytes) -> CheckInReply:
    """Read the answer to a check-in, or raise `BadMessage`."""
    return read_reply(
        raw,
        lambda f: CheckInReply(
            token=f.text("token", limit=512),
            token_expires_in_s=f.integer("token_expires_in_s", low=1, high=86_400),
            poll_interval_s=f.integer("poll_interval_s", low=1, high=86_400 * 7),
            check_in_interval_s=f.integer("check_in_interval_s", low=1, high=86_400 * 7),
            acked_event=f.integer("acked_event"),
            tuf=read_versions(f.inner("tuf")),
            now=f.time("now"),
            acked_metric=f.integer("acked_metric", default=0),
            push=_push_terms(f.opt_inner("push")),
            max_check_in_bytes=_room(f.raw("max_check_in_bytes", None)),
            accepts=_accepts(f.raw("accepts", None)),
            diagnostics=_wish(f.raw("diagnostics", None)),
        ),
    )


def _room(said: object) -> int:
    """Read how large a check-in may be: an unsigned word, held within what every registry takes
    and what this one may ever have said."""
    if isinstance(said, bool) or not isinstance(said, int):
        return SMALL_CHECK_IN_BYTES
    return min(max(said, SMALL_CHECK_IN_BYTES), MAX_CHECK_IN_BYTES)


def _accepts(found: object) -> tuple[str, ...]:
    """Read which fields the registry can read; what is no word is none of them."""
    words = found if isinstance(found, list) else []
    return tuple(word for word in words if isinstance(word, str))


def _push_terms(f: Fields | None) -> PushTerms | None:
    if f is None:
        return None
    return PushTerms(
        poll_interval_s=f.integer("poll_interval_s", low=1, high=86_400),
        ping_s=f.integer("ping_s", low=1, high=86_400),
        spread_s=f.integer("spread_s", high=86_400),
    )


def _wish(found: object) -> DiagnosticsWish | None:
    """Read what is wanted; what is no wish is none, since the token beside it is needed."""
    try:
        f = Fields(found, "diagnostics", BadMessage)
        return DiagnosticsWish(f.integer("id", low=1), f.named("reader", names.check_sha256))
    except BadMessage:
        return None
