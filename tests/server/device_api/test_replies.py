"""The answer to a check-in, written from a form, is the protocol's answer byte for byte."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from pilotwave_protocol.messages.check_in import MAX_CHECK_IN_BYTES
from pilotwave_protocol.messages.check_in_reply import NUMBERING, CheckInReply
from pilotwave_protocol.push import PushTerms
from pilotwave_server.device_api.replies import Replies
from pilotwave_server.diagnostics.service import wish_of
from pilotwave_server.fleet.state import Hint
from pilotwave_server.settings import Settings
from pilotwave_server.telemetry.store import Stored

NOW = datetime(2026, 1, 31, 9, 30, 15, 999_999, tzinfo=timezone.utc)
TOKEN = "a1b2.cam-017.1.1769850000.Zm9v-_bar"
SETTINGS = Settings(data_dir=Path("/nowhere"))


def plain(
    stored: Stored, hint: Hint, push: PushTerms | None, now: datetime, token: str = TOKEN
) -> bytes:
    return CheckInReply(
        token=token,
        token_expires_in_s=SETTINGS.token_lifetime_s,
        poll_interval_s=SETTINGS.poll_interval_s,
        check_in_interval_s=SETTINGS.check_in_interval_s,
        acked_event=stored.acked_event,
        acked_metric=stored.acked_metric,
        tuf={"root": hint.root, "timestamp": hint.timestamp, "snapshot": hint.snapshot},
        now=now,
        push=push,
        max_check_in_bytes=MAX_CHECK_IN_BYTES,
        accepts=(NUMBERING,),
        diagnostics=wish_of(stored.diagnostics_wish),
    ).to_bytes()


@pytest.mark.parametrize(
    "stored",
    [Stored(), Stored(7, 9), Stored(2**53 - 1), Stored(1, diagnostics_wish=f"3 {'ab' * 32}")],
)
@pytest.mark.parametrize("push", [None, PushTerms(900, 30, 60)])
def test_it_is_what_the_protocol_writes(stored: Stored, push: PushTerms | None) -> None:
    replies, hint = Replies(SETTINGS), Hint(root=3, timestamp=400, snapshot=50)
    for now in (NOW, NOW + timedelta(seconds=1)):
        written = replies.write(token=TOKEN, stored=stored, hint=hint, push=push, now=now)
        assert written == plain(stored, hint, push, now)


def test_nothing_of_one_answer_stays_in_the_next() -> None:
    replies, hint, newer = Replies(SETTINGS), Hint(root=1), Hint(root=2)
    wish = Stored(5, 6, diagnostics_wish=f"3 {'ab' * 32}")
    for stored, then, push in (
        (wish, hint, None),
        (Stored(1), hint, None),
        (Stored(1), newer, None),
        (Stored(1), newer, PushTerms(900, 30, 60)),
        (Stored(2), newer, None),
    ):
        written = replies.write(token=TOKEN, stored=stored, hint=then, push=push, now=NOW)
        assert written == plain(stored, then, push, NOW)
