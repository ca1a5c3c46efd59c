"""The one way in which sniffing says no."""

from __future__ import annotations

from pilotwave_protocol.errors import ProtocolError


class BadModel(ProtocolError):
    """The file is not what it claims to be, or says something that no device could use.

    The text is a sentence without the file's name; whoever opened the file puts it in front.
    """

    code = "bad_model"
