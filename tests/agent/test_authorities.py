"""A private authority for TLS: kept where the agent can read it, and named where it cannot."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from pilotwave_agent.commands.enrol import EnrolOptions, enrol
from pilotwave_agent.net.http import Channel, Unreachable
from pilotwave_agent.net.server_api import channel_of
from pilotwave_agent.push.channel import Lost
from pilotwave_agent.push.websocket import WebSocketChannel
from pilotwave_agent.settings import config as settings
from tests import certificates
from tests.peers.registry import Registry

URL = "https://localhost:9"


@pytest.fixture
def private(tmp_path: Path) -> Path:
    """A certificate for `localhost` with its key, in a person's own folder."""
    folder = tmp_path / "home"
    folder.mkdir(mode=0o700)
    certificate, key = certificates.self_signed("localhost")
    (folder / "ca.pem").write_bytes(certificate)
    (folder / "key.pem").write_bytes(key)
    return folder


@pytest.fixture
def registry(private: Path) -> Iterator[Registry]:
    """A registry behind TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(private / "ca.pem", private / "key.pem")
    made = Registry()
    made.http.socket = context.wrap_socket(made.http.socket, server_side=True)
    yield made
    made.stop()


@pytest.mark.parametrize("apart", [False, True])
def test_enrol_keeps_the_authority_with_the_device(
    registry: Registry, private: Path, tmp_path: Path, apart: bool
) -> None:
    data, config = tmp_path / "cam-1", tmp_path / ("etc" if apart else "cam-1") / "agent.toml"
    (tmp_path / "root.json").write_bytes(registry.root)
    wish = EnrolOptions(
        registry.url.replace("http://127.0.0.1", "https://localhost"),
        "cam-1",
        code="good",
        root_file=tmp_path / "root.json",
        ca_file=private / "ca.pem",
    )
    list(enrol(wish, config, data))
    (private / "ca.pem").unlink()
    found = settings.load(config)
    assert found.ca_file == str(data / "server-ca.pem")
    channel = channel_of(found)
    assert channel.request("GET", "/tuf/metadata/1.root.json").body == registry.root
    channel.close()


@pytest.mark.parametrize(
    ("made", "why"), [(False, "No such file or directory"), (True, "it holds no certificate")]
)
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, made: bool, why: str) -> None:
    ca_file = tmp_path / "ca.pem"
    if made:
        ca_file.write_text("not a certificate\n")
    with pytest.raises(Unreachable, match=rf"ca_file {ca_file} cannot be used: {why}"):
        Channel(URL, ca_file=str(ca_file)).request("GET", "/")


def test_a_push_channel_names_it_too(registry: Registry, tmp_path: Path) -> None:
    url = registry.url.replace("http://127.0.0.1", "https://localhost")
    with pytest.raises(Lost, match=rf"ca_file {tmp_path}/none cannot be used"):
        WebSocketChannel(url, "t", ca_file=str(tmp_path / "none"), timeout_s=5, ping_s=240.0)
