"""Trace contexts: what is exactly one is read, and everything else is none."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotwave_protocol.tracing import (
    MAX_TRACES,
    TraceContext,
    TracingUnavailable,
    check_endpoint,
    parse_traceparent,
    parse_traces,
    write_traces,
)

GOOD = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def test_a_traceparent_is_read_and_written_alike() -> None:
    context = parse_traceparent(GOOD)
    assert context == TraceContext("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7")
    assert str(context) == GOOD


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        GOOD[:-3],
        GOOD[:-2] + "00",  # its sender records nothing
        GOOD.upper(),
        GOOD + "-more",  # of a later version
        "01" + GOOD[2:],
        "ff" + GOOD[2:],
        GOOD.replace("4bf92f3577b34da6a3ce929d0e0e4736", "0" * 32),
        GOOD.replace("00f067aa0ba902b7", "0" * 16),
        f" {GOOD}",
        f"{GOOD}\n",
        GOOD.replace("4", "٤"),  # digits of another script
        GOOD * 1000,
    ],
)
def test_what_is_no_traceparent_is_none(text: str | None) -> None:
    assert parse_traceparent(text) is None


@given(st.text(max_size=200))
def test_no_text_raises_anything(text: str) -> None:
    for found in parse_traces(text).values():
        assert parse_traceparent(str(found)) == found


def test_contexts_by_model_are_read_as_they_were_written() -> None:
    context = TraceContext("a" * 32, "b" * 16)
    traces = {f"model-{n}": context.child(str(n)) for n in range(MAX_TRACES)}
    assert parse_traces(write_traces(traces)) == traces
    assert len(parse_traces(write_traces({**traces, "more": context}))) == MAX_TRACES


def test_a_list_keeps_what_is_right_in_it_and_is_bounded() -> None:
    assert set(parse_traces(f"net={GOOD},../x={GOOD},=,net2={GOOD[:-1]},=={GOOD}")) == {"net"}
    began = time.process_time()
    assert parse_traces(f"net={GOOD}," * 100_000) == {}
    assert time.process_time() - began < 0.1


def test_a_child_is_the_same_wherever_it_is_named() -> None:
    context = TraceContext("a" * 32, "b" * 16)
    assert context.child("r1 wave 0") == context.child("r1 wave 0")
    assert context.child("r1 wave 0") != context.child("r1 wave 1")
    assert parse_traceparent(str(context.child("x"))) is not None


@pytest.mark.parametrize(
    "url", ["", "collector:4318", "ftp://c", "http://", "http://c:0", "http://a b"]
)
def test_an_endpoint_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(TracingUnavailable, match="collector's URL"):
        check_endpoint(url)
