"""The root document that a device is given when it is enrolled."""

from __future__ import annotations

import pytest

from pilotwave_agent.identity import BadIdentity, check_root


@pytest.mark.parametrize(
    "given",
    [
        b"-----BEGIN PRIVATE KEY-----\n",
        b"",
        b"\xff\xfe",
        b'{"signed": {"_type": "targets"}}',
    ],
)
def test_what_is_no_root_is_told_which_file_is_meant(given: bytes) -> None:
    with pytest.raises(BadIdentity, match=r"expected a TUF root document, .*\(root\.json\)"):
        check_root(given, None)
