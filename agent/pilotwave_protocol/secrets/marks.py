"""What private keys, passwords and tokens look like in a file's bytes.

A private key is looked for in the whole file, whatever that is; passwords and tokens in texts and
in a file's first megabyte, as weights hold every short run of letters somewhere.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

CHUNK = 1 << 20
_OVERLAP = 1 << 13
_HEAD = 1 << 13


@dataclass(frozen=True)
class Secret:
    """What was found, in words. `certain`: it is a private key and can be nothing else."""

    what: str
    certain: bool = True


_PEM_HEAD = (
    rb"-{5}BEGIN (?:[A-Z0-9]{1,20} ){0,4}PRIVATE KEY(?: BLOCK)?-{5}"
    rb"|-{4} BEGIN SSH2 (?:ENCRYPTED )?PRIVATE KEY -{4}"
)
_PEM = re.compile(_PEM_HEAD)
# programs hold the first line alone as a constant; a key goes on with base64
_PEM_KEY = re.compile(rb"(?:" + _PEM_HEAD + rb")(?:\s|\\[rn]){1,8}[A-Za-z0-9+/:, \-\r\n\\]{16}")
_IN_BASE64 = re.compile(rb"LS0tLS1CRUdJTi[A-Za-z0-9+/]{8,80}")
_AGE = re.compile(rb"AGE-(?:SECRET-KEY|PLUGIN-[A-Z0-9]{1,40})-(?:PQ-)?1[0-9A-Z]{8}")
_PUTTY = re.compile(rb"PuTTY-User-Key-File-\d: ")
_DER = rb"\x30(?:[\x00-\x80]|\x81.|\x82..|\x83...)"
_RSADSI = rb"\x2a\x86\x48\x86\xf7\x0d\x01"
_STARTS = (
    ("a private key (DER)", rb"%s\x02\x01[\x00\x01]\x30[\x05-\x1f]\x06" % _DER),
    ("a private key (DER, RSA)", rb"%s\x02\x01[\x00\x01]\x02(?:[\x20-\x7f]|[\x81\x82])" % _DER),
    ("a private key (DER, EC)", rb"%s\x02\x01\x01\x04[\x14-\x42]" % _DER),
    ("an encrypted private key (DER)", rb"%s%s\x06[\x09\x0a]%s[\x05\x0c]" % (_DER, _DER, _RSADSI)),
    ("a key store (PKCS #12)", rb"%s\x02\x01\x03\x30" % _DER),
    ("a key store (Java)", rb"(?:\xfe\xed\xfe\xed|\xce\xce\xce\xce)\x00\x00\x00[\x01\x02]"),
    ("a password store (KeePass)", rb"\x03\xd9\xa2\x9a[\x65\x67]\xfb\x4b\xb5"),
    ("an OpenSSH private key", rb"openssh-key-v1\x00"),
    (
        "an OpenPGP private key",
        rb"(?:\x94.|\x95..|\xc5[\x00-\xff]{1,5}?)\x04....[\x01\x11-\x16]\x00",
    ),
    ("a signing key (minisign, signify)", rb"untrusted comment: [^\n]{0,80}secret key"),
)
_BY_START = tuple((what, re.compile(pattern, re.DOTALL)) for what, pattern in _STARTS)

_VALUE = (
    rb"['\"]?(?![<\[{$*\s'\"]|(?:null|none|true|false|changeme|example|your[_-])\b)[^\s'\"]{4,}"
)
_TEXTS = (
    ("a cloud access key", rb"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"),
    ("a token of GitHub", rb"\b(?:gh[pousr]_[A-Za-z0-9]{30,255}|github_pat_[A-Za-z0-9_]{30,255})"),
    ("a token of GitLab", rb"\bglpat-[A-Za-z0-9_\-]{20}"),
    ("a token of Hugging Face", rb"\bhf_[A-Za-z0-9]{30,}\b"),
    ("an API key", rb"\b(?:sk-[A-Za-z0-9_\-]{32,}|AIza[0-9A-Za-z_\-]{35})"),
    ("an API key", rb"\b[rs]k_live_[0-9A-Za-z]{16,}"),
    ("a token of Slack", rb"\bxox[abeprs]-[0-9A-Za-z\-]{10,}"),
    ("a token of a package index", rb"\b(?:npm_[A-Za-z0-9]{36}\b|pypi-AgE[A-Za-z0-9_\-]{40,})"),
    ("a token of Pilotwave", rb"\bpw_[A-Za-z0-9_\-]{24,}"),
    ("a storage account's key", rb"\b(?:AccountKey|SharedAccessKey)=[A-Za-z0-9+/]{30,}={0,2}"),
    ("a private key (WireGuard)", rb"(?m)^PrivateKey[ \t]{0,9}=[ \t]{0,9}[A-Za-z0-9+/]{42,43}="),
    ("a private key (JWK)", rb"\"kty\"[^}]{0,1024}\"d\"\s{0,9}:\s{0,9}\""),
    ("a private key (JWK)", rb"\"d\"\s{0,9}:\s{0,9}\"[^}]{0,1024}\"kty\""),
    (
        "a password in a URL",
        rb"[a-z0-9]://[A-Za-z0-9._%+\-]{0,128}"
        rb":(?!(?:password|passwd|pass|secret|token|changeme|example)@)"
        rb"[A-Za-z0-9._~%!&'()*+,;=\-][A-Za-z0-9._~%!$&'()*+,;=\-]{3,255}@[A-Za-z0-9\[]",
    ),
    (
        "a password of HTTP",
        rb"(?i)\bAuthorization['\"]?[ \t]{0,9}[:=][ \t]{0,9}['\"]?"
        rb"(?:Basic|Bearer|token)[ \t]{1,9}[A-Za-z0-9+/._\-]{16}",
    ),
    (
        "a password of a container registry",
        rb"\"auth\"\s{0,9}:\s{0,9}\"[A-Za-z0-9+/]{8,1024}={0,2}\"",
    ),
    (
        "a password of .netrc",
        rb"(?:machine\s{1,9}\S{1,255}|default)\s{1,9}login\s{1,9}\S{1,255}\s{1,9}password\s{1,9}\S",
    ),
    (
        "a password or token",
        rb"(?m)^[ \t]{0,40}(?:(?:export|set|ENV)[ \t]{1,9})?(?:[A-Z0-9]{1,40}_){0,8}"
        rb"(?:SECRET|PASSWORD|PASSWD|PASSPHRASE|TOKEN|API_?KEY|PRIVATE_?KEY|ACCESS_?KEY"
        rb"|CREDENTIALS?)(?:_[A-Z0-9]{1,40}){0,4}[ \t]{0,20}=[ \t]{0,20}" + _VALUE,
    ),
    (
        "a password or token",
        rb"(?mi)(?:^|[{,])[ \t]{0,40}['\"]?(?:[a-z0-9]{1,40}[_\-]){0,4}"
        rb"(?:password|passwd|passphrase|secret_?(?:access_)?key"
        rb"|client_?secret|api_?key|private_?key(?:_id)?|(?:access|auth|refresh|api|bearer)_?token"
        rb"|_authtoken)['\"]?[ \t]{0,20}[:=][ \t]{0,20}" + _VALUE,
    ),
)
_BY_TEXT = tuple((what, re.compile(pattern)) for what, pattern in _TEXTS)


def key_in_bytes(data: memoryview) -> Secret | None:
    """Return which private key a file's bytes are or hold, in a time linear in their number.

    Passwords are not looked for, archives not opened.
    """
    chunks = (bytes(data[at : at + CHUNK]) for at in range(0, len(data), CHUNK))
    return secret_in(chunks, keys_only=True)


def secret_in(chunks: Iterable[bytes], *, keys_only: bool = False) -> Secret | None:
    """Return the first secret in a file that comes in chunks, the first of at least its head."""
    text, before = False, b""
    for number, chunk in enumerate(chunks):
        if number == 0:
            chunk, text = _plain(chunk)
            if by_start := _by_start(chunk):
                return by_start
        piece = before + chunk
        found = _private_key(piece, text=text)
        if found is None and not keys_only and (text or number == 0):
            found = _password(piece)
        if found:
            return found
        before = piece[-_OVERLAP:]
    return None


def _plain(chunk: bytes) -> tuple[bytes, bool]:
    """Return the chunk, as UTF-8 if it is UTF-16, and whether the file is a text."""
    if chunk.startswith((b"\xff\xfe", b"\xfe\xff")):
        return chunk.decode("utf-16", "ignore").encode("utf-8", "ignore"), True
    return chunk.removeprefix(b"\xef\xbb\xbf"), b"\0" not in chunk[:_HEAD]


def _by_start(chunk: bytes) -> Secret | None:
    return next((Secret(what) for what, pattern in _BY_START if pattern.match(chunk)), None)


def _private_key(piece: bytes, *, text: bool) -> Secret | None:
    # `in` is a hundred times as fast as a pattern, and a model can have gigabytes
    if b"PRIVATE KEY" in piece and (_PEM if text else _PEM_KEY).search(piece):
        return Secret("a private key (PEM)")
    if b"AGE-" in piece and _AGE.search(piece):
        return Secret("a private key (age)")
    if b"PuTTY-User-Key-File-" in piece and _PUTTY.search(piece):
        return Secret("a private key (PuTTY)")
    if b"LS0tLS1CRUdJTi" in piece and any(map(_is_pem, _IN_BASE64.finditer(piece))):
        return Secret("a private key (PEM in base64)")
    return None


def _is_pem(found: re.Match[bytes]) -> bool:
    try:
        return b"PRIVATE" in base64.b64decode(found[0][: len(found[0]) // 4 * 4])
    except binascii.Error:
        return False


def _password(piece: bytes) -> Secret | None:
    return next(_passwords(piece), None)


def _passwords(piece: bytes) -> Iterator[Secret]:
    for what, pattern in _BY_TEXT:
        if pattern.search(piece):
            yield Secret(what, certain="private key" in what)
