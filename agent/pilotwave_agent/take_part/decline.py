"""Tell the server why this device takes no part in a round: signed, and once for each reason."""

from __future__ import annotations

import contextlib

from pilotwave_agent.host.log import say
from pilotwave_agent.net.server_api import ServerSaid, WaitingRound, send_bytes
from pilotwave_agent.rounds import answered
from pilotwave_agent.take_part.device import CannotTakePart, Device
from pilotwave_protocol import dsse
from pilotwave_protocol.digest import sha256_hex
from pilotwave_protocol.errors import BadPlan, PilotwaveError, RefusedError
from pilotwave_protocol.learning.decline import DECLINE_TYPE, Decline, Why
from pilotwave_protocol.learning.plan import parse_plan
from pilotwave_protocol.states import Reason

_PATH = "/device/v1/declines"
_TOLD = ".declined"
_OF_CHILD = {
    Reason.SELFTEST_TIMEOUT: Why.TIMED_OUT,
    Reason.SELFTEST_SLOW: Why.TIMED_OUT,
    Reason.SELFTEST_MEMORY: Why.OUT_OF_MEMORY,
}


def decline(device: Device, waiting: WaitingRound, no: PilotwaveError) -> None:
    """Send the reason, where it is one for the server and was not the last one sent.

    Raises `Unreachable`, `BadAnswer`, `OSError`.
    """
    why = _why(no)
    with contextlib.suppress(BadPlan):
        plan, digest = parse_plan(waiting.plan), sha256_hex(waiting.plan)
        told = answered(device.layout, digest, waiting.number).with_suffix(_TOLD)
        examples = no.examples if isinstance(no, CannotTakePart) else None
        words = f"{why} {examples}".encode()
        if why is None or (device.disk.size(told) and device.disk.read(told) == words):
            return
        statement = Decline(
            fleet=device.who.fleet,
            device=device.who.device,
            model=plan.model,
            plan=digest,
            round=waiting.number,
            why=why,
            examples=examples,
        )
        envelope = dsse.sign(DECLINE_TYPE, statement.to_bytes(), device.who.key)
        try:
            send_bytes(device.channel, device.token, _PATH, envelope)
        except ServerSaid as e:
            say(f"the server takes no reasons: {e}", level="warning")
            return
        device.disk.make_dirs(told.parent)
        device.disk.write_atomic(told, words)


def _why(no: PilotwaveError) -> Why | None:
    if isinstance(no, RefusedError):
        return _OF_CHILD.get(no.reason, Why.CHILD_FAILED)
    return no.why if isinstance(no, CannotTakePart) else None
