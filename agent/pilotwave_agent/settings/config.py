"""Read the agent's settings from one TOML file. Each error names the key and what it expects.

Everything but `server`, `device` and `data_dir` has a default. What operators decide (labels,
versions, intervals) is the server's; here is only what belongs to this one machine.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pilotwave_agent.settings.capture import CaptureSettings, read_capture
from pilotwave_agent.settings.diagnostics import DiagnosticsSettings, read_diagnostics
from pilotwave_agent.settings.download_limits import OwnLimits, read_limits
from pilotwave_agent.settings.escalate import EscalateSettings, read_escalate
from pilotwave_agent.settings.facts import FactSettings, read_fact_settings
from pilotwave_agent.settings.learn import LearnSettings, read_learn
from pilotwave_agent.settings.proxies import ENVIRONMENT, Proxies, from_environment, read_proxy
from pilotwave_agent.settings.push import PushSettings, read_push
from pilotwave_agent.settings.tell import Tell, read_tell
from pilotwave_agent.settings.tracing import TracingSettings, read_tracing
from pilotwave_protocol import names
from pilotwave_protocol.errors import ProtocolError
from pilotwave_protocol.fields import Fields

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PROFILES = ("standard", "battery")
PROBES = ("selftest", "exec", "http", "kserve", "apps", "systemd")


class BadConfig(ProtocolError):
    """The settings file cannot be read or says something that has no meaning."""

    code = "bad_config"


@dataclass(frozen=True)
class ProbeSettings:
    """How a version is watched after the switch: kind, every `interval_s`, each at most
    `timeout_s`, and how many in a row must fail to take it back. `name` is the model's at a KServe
    server, `apps` how many applications must live at least, `crashes` how many ends of the served
    application since the switch are a crash loop."""

    kind: str = "selftest"
    command: tuple[str, ...] = ()
    url: str = ""
    interval_s: float = 20.0
    timeout_s: float = 10.0
    failures: int = 3
    name: str = ""
    unit: str = ""
    apps: int = 1
    crashes: int = 3


@dataclass(frozen=True)
class RuntimeSettings:
    """`[runtimes.NAME]`: how models of one runtime are tried here.

    `python` is the interpreter that has the runtime, where that is not the agent's own. `devices`
    are wishes in order (execution providers, OpenVINO devices, delegates); what is not there is
    passed over. `build_timeout_s` bounds compiling an engine.
    """

    python: str = ""
    devices: tuple[str, ...] = ()
    threads: int = 1
    build_timeout_s: float = 1800.0


@dataclass(frozen=True)
class Config:
    """All settings. Times in seconds, sizes in MiB.

    `client_cert`, with its key in `client_key` or in the same file, is shown to a server that asks
    for a certificate. `mirrors` are asked before the server; `proxy` leads to both.
    `download_hosts` are the object stores that the server may name for a file, as URLs without a
    path.
    `deltas` lets files be patched from those that run; `delta_memory_mb` bounds what that may take.
    `selftest_cpu_s` bounds a self-test's seconds of CPU; 0 is twice its wall time;
    `selftest_allow_unconfined` has formats that run code tried where nothing confines them;
    `selftest_filter_calls` keeps a model from system calls that it should not need.
    `apps_group` is the group whose members' applications may report, `app_users` the ids of those
    users alone who may report on a model. `profile` battery spares
    wake-ups; `metered` and `timezone` say what cannot be seen from here. `self_update` lets
    versions of the reserved model replace the agent; each has `self_update_timeout_s` for proof.
    """

    server: str
    device: str
    data_dir: Path
    ca_file: str | None = None
    client_cert: str | None = None
    client_key: str | None = None
    probation_s: float = 60.0
    probe: ProbeSettings = field(default_factory=ProbeSettings)
    selftest_timeout_s: float = 60.0
    selftest_memory_mb: int = 1024
    selftest_cpu_s: float = 0.0
    selftest_allow_unconfined: bool = False
    selftest_filter_calls: bool = True
    runtimes: Mapping[str, RuntimeSettings] = field(default_factory=dict)
    allow_unsafe_formats: bool = False
    keep_free_mb: int = 64
    max_model_mb: int = 0
    max_models_mb: int = 0
    allow_removal: bool = True
    limits: OwnLimits = field(default_factory=OwnLimits)
    deltas: bool = True
    delta_memory_mb: int = 128
    mirrors: tuple[str, ...] = ()
    download_hosts: tuple[str, ...] = ()
    max_poll_interval_s: float = 86_400.0
    max_check_in_interval_s: float = 86_400.0
    tell: tuple[Tell, ...] = ()
    apps_group: str = ""
    app_users: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    network_timeout_s: float = 10.0
    profile: str = "standard"
    metered: bool | None = None
    timezone: str = ""
    push: PushSettings = field(default_factory=PushSettings)
    diagnostics: DiagnosticsSettings = field(default_factory=DiagnosticsSettings)
    capture: CaptureSettings = field(default_factory=CaptureSettings)
    escalate: EscalateSettings = field(default_factory=EscalateSettings)
    learn: LearnSettings = field(default_factory=LearnSettings)
    tracing: TracingSettings = field(default_factory=TracingSettings)
    facts: FactSettings = field(default_factory=FactSettings)
    proxy: str = ""
    proxy_password_file: str = ""
    no_proxy: tuple[str, ...] = ()
    self_update: bool = True
    self_update_timeout_s: float = 600.0

    @cached_property
    def proxies(self) -> Proxies:
        """The proxies that lead to the server and to mirrors. Raises `BadConfig`."""
        return proxies_of(self)


def load(path: Path) -> Config:
    """Read a settings file, or raise `BadConfig`."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError as e:
        raise BadConfig(f"{path}: no such file; enrolling this device writes one") from e
    except OSError as e:
        raise BadConfig(f"{path}: cannot be read: {e.strerror}") from e
    try:
        return parse(tomllib.loads(raw.decode("utf-8")), base=path.absolute().parent)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise BadConfig(f"{path}: not TOML: {e}") from e
    except BadConfig as e:
        raise BadConfig(f"{path}: {e}") from e


def parse(data: dict[str, Any], *, base: Path) -> Config:
    """Read settings; relative paths are taken from `base`."""
    f = Fields(data, "", BadConfig)
    test = _section(f, "selftest")
    secret = f.text("proxy_password_file", limit=4096, default="")
    config = Config(
        server=check_server(f.text("server")),
        device=f.named("device", names.check_device),
        data_dir=base / os.path.expanduser(f.text("data_dir")),
        ca_file=_file(f, "ca_file", base),
        client_cert=_file(f, "client_cert", base),
        client_key=_file(f, "client_key", base),
        probation_s=_seconds(f, "probation_s", 60.0),
        probe=_probe(_section(f, "probe")),
        selftest_timeout_s=_seconds(test, "timeout_s", 60.0, low=1.0),
        selftest_memory_mb=test.integer("memory_mb", default=1024),
        selftest_cpu_s=_seconds(test, "cpu_s", 0.0),
        selftest_allow_unconfined=test.boolean("allow_unconfined", default=False),
        selftest_filter_calls=test.boolean("filter_calls", default=True),
        runtimes=_runtimes(f),
        allow_unsafe_formats=f.boolean("allow_unsafe_formats", default=False),
        keep_free_mb=f.integer("keep_free_mb", default=64),
        max_model_mb=f.integer("max_model_mb", default=0),
        max_models_mb=f.integer("max_models_mb", default=0),
        allow_removal=f.boolean("allow_removal", default=True),
        limits=read_limits(_section(f, "limits")),
        deltas=f.boolean("deltas", default=True),
        delta_memory_mb=f.integer("delta_memory_mb", default=128),
        mirrors=_mirrors(f),
        download_hosts=_download_hosts(f),
        max_poll_interval_s=_seconds(f, "max_poll_interval_s", 86_400.0, low=1.0),
        max_check_in_interval_s=_seconds(f, "max_check_in_interval_s", 86_400.0, low=1.0),
        apps_group=_group(f),
        app_users=_app_users(f),
        tell=tuple(read_tell(t, base) for t in f.objects("tell", limit=16, default=[])),
        network_timeout_s=_seconds(f, "network_timeout_s", 10.0, low=0.1),
        profile=_word(f, "profile", PROFILES),
        metered=f.boolean("metered") if f.raw("metered", None) is not None else None,
        timezone=_zone(f),
        push=read_push(_section(f, "push"), base),
        diagnostics=read_diagnostics(_section(f, "diagnostics")),
        capture=read_capture(_section(f, "capture")),
        escalate=read_escalate(_section(f, "escalate"), check_server),
        learn=read_learn(_section(f, "learn")),
        tracing=read_tracing(_section(f, "tracing")),
        facts=read_fact_settings(f.mapping("facts", limit=32, default={}), BadConfig),
        proxy=f.text("proxy", limit=2048, default=""),
        proxy_password_file=str(base / os.path.expanduser(secret)) if secret else "",
        no_proxy=tuple(f.texts("no_proxy", limit=64, default=[])),
        self_update=f.boolean("self_update", default=True),
        self_update_timeout_s=_seconds(f, "self_update_timeout_s", 600.0, low=1.0),
    )
    if config.client_key and not config.client_cert:
        raise f.fail("client_cert", "the certificate (PEM) that client_key belongs to", None)
    proxies_of(config)
    for section in (f, test):
        section.done()
    return config


def check_server(url: str, *, key: str = "server") -> str:
    """Check a server's URL and return it without a slash at its end."""
    try:
        found = urlsplit(url)
        ok = found.scheme in ("http", "https") and bool(found.hostname)
        ok = ok and not (found.query or found.fragment or found.username) and found.port != 0
    except ValueError:
        ok = False
    if not ok or not url.isascii() or any(c.isspace() for c in url):
        raise BadConfig(f"{key}: expected a URL like https://pilotwave.example; got {url!r:.80}")
    return url.rstrip("/")


def proxies_of(config: Config) -> Proxies:
    """Return what `proxy` and the settings beside it ask for. Raises `BadConfig`."""
    try:
        if config.proxy == ENVIRONMENT:
            found = from_environment()
            return replace(found, without=(*found.without, *config.no_proxy))
        password = _password(config.proxy_password_file)
        proxy = read_proxy(config.proxy, password) if config.proxy else None
    except ValueError as e:
        # what was found may hold a password, so it is not shown
        raise BadConfig(f"proxy: expected {ENVIRONMENT}, or {e}; got another value") from e
    return Proxies(proxy, proxy, config.no_proxy)


def _password(path: str) -> str:
    try:
        return Path(path).read_bytes().decode("utf-8").strip() if path else ""
    except (OSError, UnicodeDecodeError) as e:
        raise BadConfig(f"proxy_password_file: {path} cannot be read: {e}") from e


def _file(f: Fields, key: str, base: Path) -> str | None:
    found = f.opt_text(key)
    return str(base / os.path.expanduser(found)) if found else None


def _mirrors(f: Fields) -> tuple[str, ...]:
    urls = f.texts("mirrors", limit=16, length=2048, default=[])
    return tuple(dict.fromkeys(check_server(url, key="mirrors") for url in urls))


def _download_hosts(f: Fields) -> tuple[str, ...]:
    """`store.example` means https; plain http has to be written out."""
    found = f.texts("download_hosts", limit=16, length=256, default=[])
    urls = [host if "://" in host else f"https://{host}" for host in found]
    urls = [check_server(url, key="download_hosts") for url in urls]
    if wrong := [url for url in urls if urlsplit(url).path]:
        raise f.fail("download_hosts", "hosts, such as models.s3.example", wrong[0])
    return tuple(dict.fromkeys(urls))


def _section(f: Fields, key: str) -> Fields:
    return f.opt_inner(key) or Fields({}, key, BadConfig)


def _seconds(f: Fields, key: str, default: float, *, low: float = 0.0) -> float:
    value = f.raw(key, default)
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not low <= value <= 86_400.0 * 7:
        raise f.fail(key, f"seconds, from {low:g} to a week", value)
    return float(value)


def _word(f: Fields, key: str, words: tuple[str, ...]) -> str:
    found = f.text(key, default=words[0])
    if found not in words:
        raise f.fail(key, f"one of {', '.join(words)}", found)
    return found


def _group(f: Fields) -> str:
    found = f.text("apps_group", default="")
    if found:
        import grp  # seldom needed

        try:
            grp.getgrnam(found)
        except KeyError:
            raise f.fail("apps_group", "a group of this machine", found) from None
    return found


def _app_users(f: Fields) -> dict[str, tuple[int, ...]]:
    section = _section(f, "app_users")
    found = {}
    for model in f.mapping("app_users", limit=256, default={}):
        users = section.texts(names.check_model(model), limit=64, length=256)
        found[model] = tuple(_uid(section, model, name) for name in users)
    return found


def _uid(f: Fields, model: str, name: str) -> int:
    if name.isdecimal() and len(name) < 10:
        return int(name)  # of a container, say, whose users this machine has no names for
    import pwd  # seldom needed

    try:
        return pwd.getpwnam(name).pw_uid
    except (KeyError, ValueError):
        raise f.fail(model, "names or numbers of users of this machine", name) from None


def _zone(f: Fields) -> str:
    found = f.text("timezone", default="")
    if not found:
        return found
    from zoneinfo import ZoneInfo  # the resident agent mostly needs none

    try:
        ZoneInfo(found)
    except (OSError, ValueError, KeyError):
        raise f.fail("timezone", "a zone such as Europe/Berlin", found) from None
    return found


def _runtimes(f: Fields) -> dict[str, RuntimeSettings]:
    found = {}
    for name, words in f.mapping("runtimes", limit=32, default={}).items():
        section = Fields(words, f"runtimes.{name}", BadConfig)
        found[name] = RuntimeSettings(
            python=os.path.expanduser(section.text("python", limit=4096, default="")),
            devices=tuple(section.texts("devices", limit=16, length=256, default=[])),
            threads=section.integer("threads", low=1, high=1024, default=1),
            build_timeout_s=_seconds(section, "build_timeout_s", 1800.0, low=1.0),
        )
        section.done()
    return found


def _probe(f: Fields) -> ProbeSettings:
    kind = f.text("kind", default="selftest")
    if kind not in PROBES:
        raise f.fail("kind", f"one of {', '.join(PROBES)}", kind)
    probe = ProbeSettings(
        kind=kind,
        command=tuple(f.texts("command", limit=64, length=4096, default=[])),
        url=f.text("url", default=""),
        interval_s=_seconds(f, "interval_s", 20.0, low=0.1),
        timeout_s=_seconds(f, "timeout_s", 10.0, low=0.1),
        failures=f.integer("failures", low=1, high=1000, default=3),
        name=f.text("name", default=""),
        unit=f.text("unit", default=""),
        apps=f.integer("apps", low=0, high=100, default=1),
        crashes=f.integer("crashes", low=1, high=1000, default=3),
    )
    f.done()
    if kind == "exec" and not probe.command:
        raise f.fail("command", "a program and its arguments, as a list", [])
    if kind == "systemd" and (not probe.unit or probe.unit.startswith("-")):
        raise f.fail("unit", "a unit's name", probe.unit)
    if kind in ("http", "kserve") and not probe.url.startswith(("http://", "https://")):
        raise f.fail("url", "an http or https URL", probe.url)
    return probe
