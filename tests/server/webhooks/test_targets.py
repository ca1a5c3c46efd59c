"""Which addresses webhooks may call."""

from __future__ import annotations

import pytest

from pilotwave_server.webhooks.targets import (
    BadWebhookUrl,
    TargetForbidden,
    check_literal,
    choose,
    may_call,
    read_url,
)

ADDRESSES = [
    # address, public, private
    ("93.184.216.34", True, True),
    ("2606:4700::1111", True, True),
    ("10.1.2.3", False, True),
    ("172.31.0.1", False, True),
    ("192.168.178.1", False, True),
    ("fd00::1", False, True),
    # this machine, by its names
    ("127.0.0.1", False, False),
    ("127.9.9.9", False, False),
    ("::1", False, False),
    ("0.0.0.0", False, False),
    ("::", False, False),
    # where clouds keep the keys of machines
    ("169.254.169.254", False, False),
    ("fe80::1", False, False),
    ("fe80::1%eth0", False, False),
    # IPv4 in other clothes: mapped, 6to4
    ("::ffff:127.0.0.1", False, False),
    ("::ffff:169.254.169.254", False, False),
    ("::ffff:10.0.0.1", False, True),
    ("2002:7f00:1::", False, False),
    ("2002:a9fe:a9fe::", False, False),
    # NAT64 of a local network, carrier NAT, documentation, multicast, broadcast
    ("64:ff9b:1::7f00:1", False, False),
    ("64:ff9b::7f00:1", False, False),
    ("64:ff9b::a9fe:a9fe", False, False),
    ("64:ff9b::a00:1", False, True),
    ("::127.0.0.1", False, False),
    ("100.64.0.1", False, False),
    ("203.0.113.5", False, False),
    ("224.0.0.1", False, False),
    ("ff02::1", False, False),
    ("255.255.255.255", False, False),
]


@pytest.mark.parametrize(("address", "public", "private"), ADDRESSES)
def test_an_address_is_called_only_where_the_setting_lets_it(
    address: str, public: bool, private: bool
) -> None:
    assert may_call(address, "public") is public
    assert may_call(address, "private") is private
    assert may_call(address, "any")


def test_a_name_with_one_forbidden_address_is_not_called_at_all() -> None:
    with pytest.raises(TargetForbidden, match="this machine"):
        choose(["93.184.216.34", "127.0.0.1"], "public")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.com",
        "ftp://example.com/",
        "file:///etc/passwd",
        "https://",
        "https://user:secret@example.com/",
        "https://example.com/#part",
        "https://example.com:0/",
        "https://example.com:99999/",
        "https://exa mple.com/",
        "https://example.com/\r\nX-Injected: 1",
        "https://[::1/",
        "https://" + "a" * 64 + ".com/",
        "https://example.com/" + "a" * 1024,
    ],
)
def test_what_is_no_plain_http_url_is_refused(url: str) -> None:
    with pytest.raises(BadWebhookUrl):
        read_url(url)


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1/", "http://localhost:9/", "http://[::1]/", "http://hook.localhost/"],
)
def test_a_forbidden_address_is_refused_when_the_webhook_is_made(url: str) -> None:
    with pytest.raises(TargetForbidden):
        check_literal(read_url(url), "public")


def test_the_parts_of_a_url_are_kept() -> None:
    target = read_url("https://example.com/a/b?c=d")
    assert target == (True, "example.com", 443, "/a/b?c=d")
    assert target.authority == "example.com"
    assert read_url("http://[2606:4700::1]:8080").authority == "[2606:4700::1]:8080"
