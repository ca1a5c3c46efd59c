from __future__ import annotations

import pytest

from pilotwave_server.blobs.ranges import Part, choose_part

ETAG = '"abc"'


@pytest.mark.parametrize(
    ("header", "part"),
    [
        (None, Part(200, 0, 10)),
        ("bytes=0-3", Part(206, 0, 4)),
        ("bytes=4-", Part(206, 4, 10)),
        ("bytes=-3", Part(206, 7, 10)),
        ("bytes=-30", Part(206, 0, 10)),
        ("bytes=9-9", Part(206, 9, 10)),
        ("bytes=5-99", Part(206, 5, 10)),
        ("bytes=10-", Part(416, 0, 0)),
        ("bytes=-0", Part(416, 0, 0)),
        ("bytes=99-100", Part(416, 0, 0)),
        # what makes no sense counts as no range
        ("bytes=-", Part(200, 0, 10)),
        ("bytes=5-2", Part(200, 0, 10)),
        ("bytes=0-1,3-4", Part(200, 0, 10)),
        ("items=0-1", Part(200, 0, 10)),
        ("bytes=a-b", Part(200, 0, 10)),
        ("bytes=1٣-", Part(200, 0, 10)),
        ("bytes=" + "9" * 30 + "-", Part(200, 0, 10)),
    ],
)
def test_a_range_header_chooses_a_part(header: str | None, part: Part) -> None:
    assert choose_part(size=10, etag=ETAG, range_=header, if_range=None, if_none_match=None) == part


@pytest.mark.parametrize(
    ("if_range", "status"),
    [(ETAG, 206), ('W/"abc"', 200), ('"other"', 200), ("Sat, 31 Jan 2026 09:30:00 GMT", 200)],
)
def test_a_range_is_given_only_of_the_very_bytes_that_the_client_holds(
    if_range: str, status: int
) -> None:
    part = choose_part(size=10, etag=ETAG, range_="bytes=4-", if_range=if_range, if_none_match=None)
    assert part.status == status


@pytest.mark.parametrize("header", [ETAG, 'W/"abc"', '"x", "abc"', "*"])
def test_what_the_client_has_is_not_sent_again(header: str) -> None:
    part = choose_part(size=10, etag=ETAG, range_=None, if_range=None, if_none_match=header)
    assert part.status == 304


def test_an_empty_blob_has_no_range() -> None:
    part = choose_part(size=0, etag=ETAG, range_="bytes=0-", if_range=None, if_none_match=None)
    assert part.status == 416
