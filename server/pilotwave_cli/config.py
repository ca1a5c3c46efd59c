"""Where the server is and which token to show: environment first, then the configuration file.

`~/.config/pilotwave/config.toml` (mode 0600) holds `url` and `token`; PILOTWAVE_URL,
PILOTWAVE_TOKEN and PILOTWAVE_KEYS (a folder) override it.
"""

from __future__ import annotations

import os
import stat
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from pilotwave_cli.errors import CliError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@dataclass(frozen=True)
class Config:
    """Where the server is, the operator's token, the folder that holds offline keys."""

    url: str
    token: str
    keys: Path


def path() -> Path:
    """Return where the configuration file is, whether it exists or not."""
    base = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(base).expanduser() / "pilotwave" / "config.toml"


def keys_dir() -> Path:
    """Return the folder of offline keys: PILOTWAVE_KEYS, or `keys` here."""
    return Path(os.environ.get("PILOTWAVE_KEYS") or "keys")


def load() -> Config:
    """Read the configuration, or raise `CliError` saying what is missing."""
    saved = _read(path())
    url = os.environ.get("PILOTWAVE_URL") or saved.get("url", "")
    token = os.environ.get("PILOTWAVE_TOKEN") or saved.get("token", "")
    if not url:
        raise CliError("no server is set; run `pilotwave login URL` or set PILOTWAVE_URL")
    if not token:
        raise CliError("no token is set; run `pilotwave login URL` or set PILOTWAVE_TOKEN")
    return Config(check_url(url), check_token(token), keys_dir())


def check_url(url: str) -> str:
    """Return a server's address without a slash at its end, or raise `CliError`."""
    if not _names_a_server(url):
        raise CliError(f"expected a server like https://fleet.example.org; got {ascii(url)[:80]}")
    return url.rstrip("/")


def _names_a_server(url: str) -> bool:
    try:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.port == 0:
            return False
    except ValueError:  # a port beyond 65535, half an IPv6 address
        return False
    return not parts.query and not parts.fragment and url.isprintable()


def check_token(token: str) -> str:
    """Return a token that fits a header, or raise `CliError`."""
    if not (token.isascii() and token.isprintable()) or " " in token:
        raise CliError("the token has invalid characters; copy it again")
    return token


def save(url: str, token: str) -> Path:
    """Write the configuration for this user alone and return its path."""
    target = path()
    for word in (url, token):
        if not word.isprintable() or '"' in word or "\\" in word:
            raise CliError("expected an address and a token without quotes and control characters")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        fresh = target.with_suffix(".new")
        fresh.unlink(missing_ok=True)
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(fd, "w") as out:
            out.write(f'url = "{url}"\ntoken = "{token}"\n')
        fresh.replace(target)
    except OSError as e:
        raise CliError(f"{target}: cannot be written: {e.strerror}") from e
    return target


def _read(source: Path) -> dict[str, str]:
    try:
        with source.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            found = tomllib.load(file)
    except FileNotFoundError:
        return {}
    except OSError as e:
        raise CliError(f"{source}: cannot be read: {e.strerror}") from e
    except ValueError as e:
        raise CliError(f"{source}: cannot be read: {e}") from e
    if "token" in found and mode & 0o077:
        raise CliError(f"{source}: others can read the token in it; run: chmod 600 {source}")
    return {k: v for k, v in found.items() if isinstance(v, str)}
