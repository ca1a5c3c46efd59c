"""Write the answers to check-ins. Those of one second are the same but for the token and for what
is acknowledged, so that they are written once, with gaps for these.
"""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from pilotwave_protocol.messages.check_in import MAX_CHECK_IN_BYTES
from pilotwave_protocol.messages.check_in_reply import NUMBERING, CheckInReply
from pilotwave_protocol.push import PushTerms
from pilotwave_server.diagnostics.service import wish_of
from pilotwave_server.fleet.state import Hint
from pilotwave_server.settings import Settings
from pilotwave_server.telemetry.store import Stored

_ACKED = b'"acked_event":0,"acked_metric":0,'
_TOKEN = b'"token":"",'


class _Said(NamedTuple):
    """What the answers of a moment have in common."""

    hint: Hint
    push: PushTerms | None
    now: datetime
    wish: str | None


class Replies:
    """Used on the event loop of one server process."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._said: _Said | None = None
        self._form = b""

    def write(
        self, *, token: str, stored: Stored, hint: Hint, push: PushTerms | None, now: datetime
    ) -> bytes:
        """Return the body of an answer."""
        said = _Said(hint, push, now.replace(microsecond=0), stored.diagnostics_wish)
        if said != self._said:
            self._form, self._said = self._form_of(said), said
        # a token is of letters, digits and .-_ alone: nothing in it needs to be escaped
        return self._form % (stored.acked_event, stored.acked_metric, token.encode())

    def _form_of(self, said: _Said) -> bytes:
        reply = CheckInReply(
            token="",
            token_expires_in_s=self._settings.token_lifetime_s,
            poll_interval_s=self._settings.poll_interval_s,
            check_in_interval_s=self._settings.check_in_interval_s,
            acked_event=0,
            tuf={
                "root": said.hint.root,
                "timestamp": said.hint.timestamp,
                "snapshot": said.hint.snapshot,
            },
            now=said.now,
            push=said.push,
            max_check_in_bytes=MAX_CHECK_IN_BYTES,
            accepts=(NUMBERING,),
            diagnostics=wish_of(said.wish),
        )
        form = reply.to_bytes().replace(b"%", b"%%")
        form = form.replace(_ACKED, b'"acked_event":%d,"acked_metric":%d,', 1)
        return form.replace(_TOKEN, b'"token":"%b",', 1)
