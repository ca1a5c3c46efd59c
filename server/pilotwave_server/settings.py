"""What an operator may set, by environment (`PILOTWAVE_…`) or option, and what it is by default."""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from pilotwave_server.base_path import base_path
from pilotwave_server.errors import BadSetting

HOUR_S, DAY_S = 3600, 86_400
NO_SETTINGS = frozenset(
    {
        "link_lifetime_s",
        "max_metadata_bytes",
        "max_waiting_downloads",
        "push_handshakes",
        "push_rate",
        "webhook_timeout_s",
    }
)
"""What once was a setting and is a constant now: an environment that still has it is no fault."""
PLAIN_PATH = re.compile(r"(/[A-Za-z0-9._~-]+)*")


class Settings(BaseSettings):
    """One server's settings. Times are in seconds, sizes in bytes."""

    model_config = SettingsConfigDict(env_prefix="PILOTWAVE_", extra="forbid", frozen=True)

    data_dir: Path = Field(Path(".data"), description="Folder for database, blobs and server keys.")
    database_url: str = Field(
        "",
        repr=False,
        description="`sqlite:///…` or `postgresql://…`; default: pilotwave.db in the data folder.",
    )
    blobs: str = Field(
        "",
        description="Where blobs are kept: a folder, or a bucket, as `s3://bucket/prefix`, "
        "`az://container/prefix` or `gs://bucket/prefix`. Default: blobs in the data folder.",
    )
    database_connections: int = Field(
        20,
        ge=2,
        le=1000,
        description="Connections to PostgreSQL that each server process keeps, and as many again "
        "for as long as it is busy; one more listens.",
    )
    database_pooler: bool = Field(
        False,
        description="Whether the database URL is that of a pooler in transaction mode (PgBouncer).",
    )
    database_direct_url: str = Field(
        "",
        repr=False,
        description="With a pooler: URL of PostgreSQL itself, for the connection that listens. "
        "Default: processes poll for each other's changes.",
    )
    drain_s: int = Field(
        0,
        ge=0,
        le=600,
        description="Seconds for which a server that was told to end goes on serving, while "
        "/readyz answers 503, so that load balancers send nothing more.",
    )
    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8600, ge=0, le=65535, description="Port to listen on; 0 picks a free one.")
    tls_cert: Path | None = Field(
        None,
        description="Certificate with its chain (PEM): the server answers HTTPS itself. Renewed "
        "files are taken within 30 s.",
    )
    tls_key: Path | None = Field(None, description="Key (PEM) of the certificate.")
    tls_client_ca: Path | None = Field(
        None,
        description="Authority (PEM) of devices' client certificates: without one of its "
        "certificates nothing under /device/ is answered. Needs `tls_cert`. Default: none is asked "
        "for.",
    )
    trusted_proxies: str = Field(
        "",
        description="Addresses or networks of trusted reverse proxies, separated by commas: their "
        "`X-Forwarded-For` and `X-Forwarded-Proto` are used. Default: none.",
    )
    key_encryption_key: str = Field(
        "",
        repr=False,
        description="Key (32 bytes in base64) that encrypts this fleet's server keys in the "
        "database. Default: server keys are files in the data folder.",
    )
    key_encryption_key_file: str = Field(
        "", description="Instead of the key itself: the file that holds it."
    )
    key_encryption_key_command: str = Field(
        "", description="Instead of the key itself: a command that prints it, as of a KMS."
    )
    workers: int = Field(1, ge=1, le=64, description="Server processes.")
    public_url: str = Field("", description="URL at which devices reach this server.")
    page_url: str = Field(
        "", description="URL at which people open the web page. Default: the public URL."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Log level."
    )
    log_format: Literal["auto", "text", "json"] = Field(
        "auto", description="Log lines for people, or JSON; auto: JSON under systemd."
    )
    access_log: bool = Field(False, description="Log each request.")
    oidc_issuer: str = Field("", description="URL of an OpenID Connect provider for sign-in.")
    oidc_client_id: str = Field("", description="Client id at the provider.")
    oidc_client_secret: str = Field("", repr=False, description="Client secret at the provider.")
    oidc_name: str = Field("single sign-on", description="The provider's name on the sign-in page.")
    oidc_new_people: Literal["none", "viewer", "publisher", "operator"] = Field(
        "none", description="Role of people who sign in for the first time; none: refuse them."
    )
    metrics_open: bool = Field(False, description="Serve /metrics without a token.")
    otlp_endpoint: str = Field(
        "",
        description="Base URL of an OpenTelemetry collector, such as `http://127.0.0.1:4318`, for "
        "traces of versions on their way to devices. Default: none are sent.",
    )

    poll_interval_s: int = Field(
        60, ge=1, le=DAY_S, description="Interval between a device's polls."
    )
    check_in_interval_s: int = Field(
        900,
        ge=1,
        le=DAY_S,
        description="Interval between check-ins when nothing happens.",
    )
    token_lifetime_s: int = Field(
        900, ge=10, le=DAY_S, description="Lifetime of a device's read token."
    )
    directive_lifetime_s: int = Field(
        7 * DAY_S,
        ge=600,
        le=90 * DAY_S,
        description="Lifetime of a directive; it is renewed at half of it.",
    )

    check_ins_per_minute: int = Field(
        12,
        ge=1,
        le=100_000,
        description="Check-ins allowed for one device per minute, after a burst of 30. Four per "
        "check_in_interval_s are always allowed.",
    )
    events_per_hour: int = Field(
        2000,
        ge=64,
        le=10_000_000,
        description="Events, and windows of metrics, stored for one device per hour. The rest "
        "waits on the device.",
    )
    event_days: int = Field(
        90, ge=1, le=36_500, description="Days for which devices' events are kept."
    )
    events_per_device: int = Field(
        5000,
        ge=100,
        le=10_000_000,
        description="Events, and lines of history, kept for one device.",
    )

    push_connections: int = Field(
        20_000,
        ge=0,
        le=1_000_000,
        description="WebSocket connections of devices in each server process; 0: none.",
    )
    push_poll_interval_s: int = Field(
        900,
        ge=1,
        le=DAY_S,
        description="Interval between polls while push works.",
    )
    push_ping_s: int = Field(
        240, ge=1, le=DAY_S, description="Interval at which a device tests its push channel."
    )
    mqtt_url: str = Field(
        "", description="Broker, `mqtt://host:1883` or `mqtts://host:8883`. Default: none."
    )
    mqtt_username: str = Field("", description="User name of the server at the broker.")
    mqtt_password: str = Field("", repr=False, description="Password of the server at the broker.")
    mqtt_ca_file: Path | None = Field(
        None, description="CA certificate (PEM) for the broker. Default: the system's."
    )
    mqtt_cert_file: Path | None = Field(
        None, description="Client certificate and key (PEM) of the server for the broker."
    )

    webhook_targets: Literal["public", "private", "any"] = Field(
        "public",
        description="Addresses that webhooks may call: public; private networks too; or any, "
        "including this machine and link-local addresses.",
    )

    distribution_interval_s: int = Field(
        300,
        ge=1,
        le=HOUR_S,
        description="Interval at which devices are counted by version.",
    )

    delta_processes: int = Field(
        1, ge=0, le=64, description="Deltas made at the same time; 0: this server makes none."
    )

    api_requests_per_second: int = Field(
        100,
        ge=0,
        le=1_000_000,
        description="Requests of one token to the operator API per second, ten seconds' worth at "
        "once, in each server process; one address may send four times as many. 0: no limit.",
    )

    keep_versions: int = Field(
        0,
        ge=0,
        le=100_000,
        description="Versions of each model whose bytes are kept, beside those in use; 0: all.",
    )

    max_downloads: int = Field(
        1000, ge=1, le=100_000, description="Simultaneous downloads by devices, on this machine."
    )
    max_downloads_per_device: int = Field(
        4,
        ge=1,
        le=1000,
        description="Simultaneous downloads by one device, in each process.",
    )
    max_download_kbps: int = Field(
        0,
        ge=0,
        le=10**9,
        description="Total download rate for devices on this machine, in kbit/s; 0: no limit.",
    )

    max_connections: int = Field(
        0,
        ge=0,
        le=1_000_000,
        description="Simultaneous HTTP connections in each server process; 0: its limit of open "
        "files.",
    )
    max_connections_per_address: int = Field(
        1000,
        ge=0,
        le=1_000_000,
        description="Simultaneous HTTP connections from one address in each server process. Beyond "
        "that, idle connections are closed for new ones; 0: no limit.",
    )
    captures_mb: int = Field(
        1024, ge=1, le=1 << 20, description="How much of captured cases is kept, in MiB."
    )
    captures_mb_per_device: int = Field(
        64, ge=1, le=1 << 20, description="How much of one device's captured cases is kept, in MiB."
    )
    captures_keep_days: int = Field(
        30, ge=1, le=3650, description="How long captured cases are kept."
    )
    max_body_bytes: int = Field(1024 * 1024, ge=1024, description="Largest body of a JSON request.")
    max_upload_bytes: int = Field(
        64 * 1024**3, ge=1024, description="Largest blob that may be uploaded."
    )

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, value: str) -> str:
        parts = [part.strip() for part in value.split(",") if part.strip()]
        for part in parts:
            if ip_network(part, strict=False).prefixlen == 0:
                raise ValueError("expected the proxies' own addresses, not everybody's")
        return ",".join(parts)

    def is_trusted_proxy(self, address: str) -> bool:
        """Whether many clients stand behind an address."""
        if not self.trusted_proxies:
            return False
        try:
            host = ip_address(address)
        except ValueError:
            return False
        networks = (ip_network(part, strict=False) for part in self.trusted_proxies.split(","))
        return any(host in network for network in networks)

    @property
    def resolved_database_url(self) -> str:
        """The database URL with its default filled in."""
        return self.database_url or f"sqlite:///{self.data_dir.absolute() / 'pilotwave.db'}"

    @property
    def database_options(self) -> dict[str, Any]:
        """What `db.Database` is told besides the URL."""
        return {"connections": self.database_connections, "pooler": self.database_pooler}

    @property
    def listening_url(self) -> str:
        """Where a connection may listen; empty: nowhere."""
        if self.database_pooler:
            return self.database_direct_url
        return self.resolved_database_url

    @property
    def people_url(self) -> str:
        """Where people open the page, without a slash at its end; empty: no setting says."""
        return (self.page_url or self.public_url).rstrip("/")

    @property
    def base_path(self) -> str:
        """The path under which people and devices reach this server: `/pilotwave`, or empty."""
        return base_path(self.people_url)

    @property
    def keys_dir(self) -> Path:
        return self.data_dir / "keys"

    @property
    def blobs_dir(self) -> Path:
        """The folder of blobs, where they are kept in one."""
        return Path(self.blobs) if self.blobs else self.data_dir / "blobs"


def load_settings(**given: object) -> Settings:
    """Settings from the environment, with `given` (where not None) on top; BadSetting if wrong."""
    try:
        return Settings(**{k: v for k, v in given.items() if v is not None})  # type: ignore[arg-type]  # pydantic checks the values
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        name = "_".join(str(part) for part in first["loc"])
        raise BadSetting(
            f"the setting {name} (PILOTWAVE_{name.upper()}) is wrong: {first['msg']}"
        ) from None


def without_effect(environment: Iterable[str]) -> list[str]:
    """The variables, of these names, that set what is no setting any more."""
    once = {f"PILOTWAVE_{name.upper()}" for name in NO_SETTINGS}
    return sorted(name for name in environment if name.upper() in once)


def check_settings(settings: Settings) -> None:
    """BadSetting where one setting needs another, or names a path that no address may have."""
    if not PLAIN_PATH.fullmatch(settings.base_path):
        raise BadSetting(
            f"expected a path such as /pilotwave in {settings.people_url}: letters, digits and "
            "`. _ ~ -` between slashes"
        )
    if settings.oidc_issuer and not settings.people_url:
        raise BadSetting(
            "single sign-on (PILOTWAVE_OIDC_ISSUER) needs PILOTWAVE_PUBLIC_URL or "
            "PILOTWAVE_PAGE_URL: where the provider sends people back is not taken from requests"
        )
