"""Join a fleet: pin its root, make the device's key, ask the server, write the settings."""

from __future__ import annotations

import json
import re
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from pilotwave_agent import copies, identity, permissions
from pilotwave_agent.facts import facts_of
from pilotwave_agent.host.disk import Disk
from pilotwave_agent.host.layout import Layout
from pilotwave_agent.identity import BadIdentity
from pilotwave_agent.net import server_api
from pilotwave_agent.net.http import Channel
from pilotwave_agent.settings import config
from pilotwave_agent.settings.config import BadConfig, Config
from pilotwave_protocol import names
from pilotwave_protocol.errors import BadName
from pilotwave_protocol.messages.enrol import Enrol, EnrolReply

_MAX_ROOT = 512_000
_WAIT_S = 5.0
_DEVICE = re.compile(r"^device\s*=.*$", re.MULTILINE)


@dataclass(frozen=True)
class EnrolOptions:
    """What a person asked for. One of `root_file` and `root_sha256` is given. `new_identity`: a key
    of its own for a data folder that was copied, even where the copy cannot be noticed."""

    server: str
    name: str
    code: str | None = None
    root_file: Path | None = None
    root_sha256: str | None = None
    ca_file: Path | None = None
    client_cert: Path | None = None
    client_key: Path | None = None
    proxy: str | None = None
    wait: bool = False
    new_identity: bool = False


def enrol(
    options: EnrolOptions, config_path: Path, data_dir: Path | None, *, machine: Path = Path("/")
) -> Iterator[str]:
    """Enrol and yield lines for a person. Doing it again with the same key changes nothing; a data
    folder that was copied from another machine gets a key of its own.

    `data_dir` None: it is what the settings file says. `machine` stands in for `/` where this
    machine is told from others. Raises `BadConfig`, `BadIdentity`, `ServerSaid`, `Unreachable`,
    `OSError`.
    """
    settings, anew = _settings(options, config_path, data_dir, machine)
    layout, disk = Layout(settings.data_dir), Disk()
    channel = server_api.channel_of(settings)
    permissions.check(layout)
    root = _root(options, channel)
    if anew:
        copies.forget_identity(disk, layout)
        yield f"{layout.root} gets a new identity: {_why_new(options)}"
    disk.make_dirs(layout.key.parent)
    _pin(disk, layout, root)
    copies.note(disk, layout, machine)
    key = identity.make_key(disk, layout.key)
    ask = Enrol(settings.device, identity.public_hex(key), options.code, facts_of(settings))
    try:
        reply = server_api.enrol(channel, key, ask)
        _keep(disk, layout, settings, config_path, reply)
        yield f"the key of this device is {identity.key_id(key)}"
        if reply.state == "pending":
            yield f"{reply.device} waits for an operator: pilotwave devices accept {reply.device}"
        # the code is used up by now; asking again with the key tells how it stands
        while options.wait and reply.state == "pending":
            time.sleep(_WAIT_S)
            reply = server_api.enrol(channel, key, replace(ask, code=None))
    finally:
        channel.close()
    if reply.state == "enrolled":
        yield f"{reply.device} is enrolled in fleet {reply.fleet}"
    yield f"start the agent: pilotwave-agent run --config {config_path}"


def _why_new(options: EnrolOptions) -> str:
    return "you asked for one" if options.new_identity else "it was copied from another machine"


def _settings(
    options: EnrolOptions, config_path: Path, data_dir: Path | None, machine: Path
) -> tuple[Config, bool]:
    """Return the settings that will hold, and whether an identity that is there makes place for a
    new one; a file that is there must agree with the options but for a new identity's name."""
    server = config.check_server(options.server)
    try:
        names.check_device(options.name)
    except BadName as e:
        raise BadConfig(str(e)) from e
    if not config_path.exists():
        folder = data_dir or config_path.parent
        made = Config(
            server=server,
            device=options.name,
            data_dir=folder,
            ca_file=_named(options.ca_file),
            client_cert=_named(options.client_cert),
            client_key=_named(options.client_key),
            proxy=options.proxy or "",
        )
        return made, _is_anew(options, folder, machine)
    known = config.load(config_path)
    anew = _is_anew(options, known.data_dir, machine)
    for key, old, new in (("server", known.server, server), ("device", known.device, options.name)):
        if old != new and not (anew and key == "device"):
            raise BadConfig(f"{config_path}: {key} is {old} there; change or remove the file first")
    return replace(known, device=options.name), anew


def _named(path: Path | None) -> str | None:
    return str(path) if path else None


def _is_anew(options: EnrolOptions, data_dir: Path, machine: Path) -> bool:
    layout = Layout(data_dir)
    return layout.key.exists() and (options.new_identity or copies.is_copy(layout, machine))


def _root(options: EnrolOptions, channel: Channel) -> bytes:
    if options.root_file is not None:
        try:
            raw = options.root_file.read_bytes()
        except OSError as e:
            sentence = f"{options.root_file}: {e.strerror}; copy root.json from the fleet's keys"
            raise BadIdentity(sentence) from e
        return identity.check_root(raw, None)
    try:
        digest = names.check_sha256((options.root_sha256 or "").lower())
    except BadName as e:
        raise BadIdentity(f"--root-sha256: {e}") from e
    answer = channel.request("GET", "/tuf/metadata/1.root.json", max_body=_MAX_ROOT)
    if answer.status != 200:
        raise server_api.ServerSaid(answer)
    return identity.check_root(answer.body, digest)


def _pin(disk: Disk, layout: Layout, root: bytes) -> None:
    if disk.size(layout.pinned_root) is None:
        disk.write_atomic(layout.pinned_root, root, 0o644)
    elif disk.read(layout.pinned_root) != root:
        sentence = f"{layout.pinned_root}: another root is pinned here; use a new data folder"
        raise BadIdentity(sentence)


def _keep(
    disk: Disk,
    layout: Layout,
    settings: Config,
    config_path: Path,
    reply: EnrolReply,
) -> None:
    identity.keep_enrolment(disk, layout, reply)
    if not config_path.exists():
        disk.make_dirs(config_path.parent)
        settings = _with_own_authorities(disk, layout, settings)
        mode = 0o600 if "@" in settings.proxy else 0o644  # it may hold a password
        disk.write_atomic(config_path, _toml(settings, config_path).encode(), mode)
    elif config.load(config_path).device != settings.device:
        named = f"device = {json.dumps(settings.device)}"
        words = _DEVICE.sub(named, config_path.read_text(encoding="utf-8"), count=1)
        mode = stat.S_IMODE(config_path.stat().st_mode)
        disk.write_atomic(config_path, words.encode(), mode)


def _with_own_authorities(disk: Disk, layout: Layout, settings: Config) -> Config:
    """Copy the file of authorities into the data folder: the service's user may be kept from where
    the person who enrols the device has it."""
    if settings.ca_file is None:
        return settings
    disk.write_atomic(layout.authorities, Path(settings.ca_file).read_bytes(), 0o644)
    return replace(settings, ca_file=str(layout.authorities))


def _toml(settings: Config, config_path: Path) -> str:
    """Write top-level keys only, so that more can be added at the end."""
    same = settings.data_dir == config_path.parent
    lines = [
        "# Settings of pilotwave-agent on this device.",
        f"server = {json.dumps(settings.server)}",
        f"device = {json.dumps(settings.device)}",
        f"data_dir = {json.dumps('.' if same else str(settings.data_dir))}",
    ]
    if settings.ca_file:
        ca_file = Path(settings.ca_file)
        shown = ca_file.name if ca_file.parent == config_path.parent else str(ca_file)
        lines.append(f"ca_file = {json.dumps(shown)}")
    for key, path in (("client_cert", settings.client_cert), ("client_key", settings.client_key)):
        if path:
            lines.append(f"{key} = {json.dumps(path)}")
    if settings.proxy:
        lines.append(f"proxy = {json.dumps(settings.proxy)}")
    return "\n".join(lines) + "\n"
