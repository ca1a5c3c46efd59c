"""Connections that the path forgot while they were idle: nothing is lost but a moment."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest

from pilotwave_agent import identity
from pilotwave_agent.net.http import (
    LEARNT_FOR_S,
    LEAST_IDLE_S,
    MAX_IDLE_S,
    Channel,
    Idle,
    TooSlow,
    Unreachable,
)
from pilotwave_agent.resident.agent import Agent
from pilotwave_agent.trust.tuf_fetcher import Fetcher
from tests.agent.resident import resident, settle, wait_until
from tests.peers.device import Device
from tests.peers.forgetful import ForgetfulPath
from tests.peers.proxy import Proxy
from tests.peers.registry import Registry, example

FORGETS_S = 0.4
GAP_S = 0.6
PATH = "/tuf/metadata/1.root.json"


@pytest.fixture
def path(registry: Registry) -> Iterator[ForgetfulPath]:
    made = ForgetfulPath(int(registry.url.rpartition(":")[2]), FORGETS_S)
    yield made
    made.close()


def test_a_request_on_a_forgotten_connection_is_sent_again_on_a_fresh_one(
    path: ForgetfulPath,
) -> None:
    channel = Channel(path.url, gap_s=GAP_S)
    assert channel.request("GET", PATH).status == 200
    time.sleep(LEAST_IDLE_S + 0.2)
    began = time.monotonic()
    assert channel.request("GET", PATH).status == 200
    assert time.monotonic() - began < GAP_S + 0.5
    assert (path.opened, path.forgotten) == (2, 1)
    channel.close()


def test_what_was_learnt_spares_the_next_wait(path: ForgetfulPath) -> None:
    channel = Channel(path.url, gap_s=GAP_S)
    channel.request("GET", PATH)
    time.sleep(LEAST_IDLE_S + 0.2)
    assert channel.request("GET", PATH).status == 200
    time.sleep(LEAST_IDLE_S + 0.2)
    began = time.monotonic()
    assert channel.request("GET", PATH).status == 200
    assert time.monotonic() - began < GAP_S / 2
    channel.close()


def test_what_changes_something_is_not_sent_twice_by_the_channel(path: ForgetfulPath) -> None:
    channel = Channel(path.url, gap_s=GAP_S)
    channel.request("GET", PATH)
    time.sleep(LEAST_IDLE_S + 0.2)
    with pytest.raises(TooSlow):
        channel.request("POST", "/device/v1/check-in", body=b"{}")
    assert not channel.kept


def test_a_server_that_is_slow_on_a_fresh_connection_is_asked_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.3)
        channel = Channel(f"http://127.0.0.1:{listener.getsockname()[1]}", gap_s=0.3)
        with pytest.raises(TooSlow):
            channel.request("GET", "/")
        listener.accept()[0].close()
        with pytest.raises(TimeoutError):
            listener.accept()


def test_a_server_that_went_away_is_asked_twice_and_no_more(registry: Registry) -> None:
    proxy = Proxy(int(registry.url.rpartition(":")[2]))
    channel = Channel(proxy.url, gap_s=GAP_S)
    channel.request("GET", PATH)
    proxy.down = True
    proxy.cut()
    with pytest.raises(Unreachable):
        channel.request("GET", PATH)
    assert proxy.struck["down"] == 1
    proxy.close()


def test_a_connection_is_kept_for_less_where_the_path_forgets_and_again_after_hours() -> None:
    now = [1000.0]
    idle = Idle(lambda: now[0])
    assert idle.most_s == MAX_IDLE_S
    idle.suspect(60.0)
    assert idle.most_s == MAX_IDLE_S  # a server that is away proves nothing
    idle.answered()
    assert idle.most_s == 30.0
    idle.answered()
    assert idle.most_s == 30.0
    now[0] += LEARNT_FOR_S + 1
    assert idle.most_s == MAX_IDLE_S


def test_no_connection_is_kept_for_longer_than_its_greatest_age(registry: Registry) -> None:
    now = [1000.0]
    path = ForgetfulPath(int(registry.url.rpartition(":")[2]), idle_s=60)
    channel = Channel(path.url, clock=lambda: now[0])
    for wait_s, opened in ((0.0, 1), (MAX_IDLE_S - 1, 1), (MAX_IDLE_S + 1, 2)):
        now[0] += wait_s
        channel.request("GET", PATH)
        assert path.opened == opened
    channel.close()
    path.close()


def test_metadata_is_asked_for_again_where_the_connection_was_forgotten(
    path: ForgetfulPath,
) -> None:
    channel = Channel(path.url, gap_s=GAP_S)
    fetcher = Fetcher(channel)
    assert fetcher.download_bytes(PATH, 1 << 20)
    time.sleep(LEAST_IDLE_S + 0.2)
    assert fetcher.download_bytes(PATH, 1 << 20)
    assert path.opened == 2
    channel.close()


def test_metadata_and_files_come_over_one_connection(registry: Registry, device: Device) -> None:
    path = ForgetfulPath(int(registry.url.rpartition(":")[2]), idle_s=60)
    device.set(server=path.url)
    registry.order(registry.publish("detector", "1.0.0", example("1.0.0")))
    device.work(refresh=True)
    assert device.slot().current
    assert path.opened == 1
    path.close()


def test_a_report_that_nothing_answers_is_made_anew(
    registry: Registry, path: ForgetfulPath, device: Device
) -> None:
    """With the next number: one that did arrive would be refused as stale, and is counted once."""
    device.set(server=path.url, network_timeout_s=GAP_S)
    agent = Agent(device.config, device.config_path, identity.load(device.layout))
    talk = agent.session
    talk.check_in(agent.state())
    time.sleep(LEAST_IDLE_S + 0.2)
    before = len(registry.check_ins)
    talk.check_in(agent.state())
    assert len(registry.check_ins) == before + 1
    assert talk.online
    agent.close()


def test_a_resident_agent_misses_no_order_behind_a_path_that_forgets(
    registry: Registry, path: ForgetfulPath, device: Device
) -> None:
    registry.poll_s, registry.check_in_s = 2, 600
    text = device.config_path.read_text().replace(registry.url, path.url)
    device.config_path.write_text(text)
    settle(device, network_timeout_s=1, probation_s=0)

    def polls() -> int:
        return registry.requests.count("GET /device/v1/directive")

    with resident(device):
        wait_until(lambda: polls() >= 2, "polls")
        before, began = polls(), time.monotonic()
        wait_until(lambda: polls() >= before + 6, "six polls", patience_s=25)
        assert time.monotonic() - began < 18
        registry.order(registry.publish("detector", "1.0.0", example("1.0.0")))
        wait_until(lambda: device.slot().current, "the order", patience_s=20)
    assert path.forgotten
