"""The ways in which the fleet's devices say no to an operator or to a device that wants to join."""

from __future__ import annotations

from typing import ClassVar

from pilotwave_server.errors import Conflict, Forbidden, Invalid, NotFound, Unavailable


class DeviceUnknown(NotFound):
    code: ClassVar[str] = "device_unknown"

    def __init__(self, name: str) -> None:
        super().__init__(f"there is no device {name}")


class NameTaken(Conflict):
    """Another key holds the name. The operator may decommission or revoke that device first."""

    code: ClassVar[str] = "name_taken"


class BadCode(Forbidden):
    """Wrong, used, expired, revoked or for another device: the answer does not tell which."""

    code: ClassVar[str] = "bad_code"


class KeyRevoked(Forbidden):
    """This key was revoked for good. The device needs a new one."""

    code: ClassVar[str] = "key_revoked"


class BadEnrolment(Invalid):
    code: ClassVar[str] = "bad_enrolment"


class TooManyPending(Unavailable):
    code: ClassVar[str] = "too_many_pending"


class WrongDeviceState(Conflict):
    """The device is in a state from which this step does not lead."""

    code: ClassVar[str] = "wrong_state"


class CodeUnknown(NotFound):
    code: ClassVar[str] = "enrolment_code_unknown"


class CodeUsed(Conflict):
    code: ClassVar[str] = "enrolment_code_used"
