"""Tell files that nobody means to ship: private keys, passwords, tokens, by content and by name.

It reads untrusted bytes in bounded memory and answers with a `Secret` or None. What is done about
one is the caller's to decide.
"""

from __future__ import annotations

from pilotwave_protocol.secrets.archives import secret_in_file
from pilotwave_protocol.secrets.marks import Secret, key_in_bytes
from pilotwave_protocol.secrets.naming import secret_by_name

__all__ = ["Secret", "key_in_bytes", "secret_by_name", "secret_in_file"]
