"""The sum of a group, with any that leave above the threshold; below it nothing comes of it."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilotwave_protocol.errors import BadMessage
from pilotwave_protocol.learning.masked.fixed_point import FixedPoint
from pilotwave_protocol.learning.statistics import read_numbers
from pilotwave_server.learning.masked.unmask import unmask
from tests.protocol.learning.masked.group import Group


def true_sum(group: Group, names: Collection[str]) -> np.ndarray:
    """Of the numbers as they are in fixed point: the sum must be this to the last bit."""
    form = FixedPoint.of(group.plan)
    return (
        sum(np.rint(read_numbers(group.numbers[n], form.count) * 2.0**form.fraction) for n in names)
        / 2.0**form.fraction
    )


def opened(group: Group, left: list[str], answering: list[str]) -> np.ndarray:
    answers = group.answer(left, answering)
    form = FixedPoint.of(group.plan)
    return unmask(group.members, form, [group.inputs[name] for name in left], answers)


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_the_sum_is_exact_whoever_leaves_above_the_threshold(data) -> None:
    group = Group(data.draw(st.integers(4, 8)))
    names, least = list(group.devices), group.plan.privacy.threshold

    def stay(some: list[str]) -> list[str]:
        kept = data.draw(st.integers(least, len(some)))
        return sorted(data.draw(st.permutations(some))[:kept])

    sharing = stay(names)
    group.share(sharing)
    left = stay(sharing)
    group.mask(sharing, left)
    answering = data.draw(st.permutations(left))[:least]
    found = opened(group, left, answering)
    assert (found == true_sum(group, left)).all()


def test_with_one_answer_too_few_the_sum_is_noise() -> None:
    group = Group(6)
    names = list(group.devices)
    group.share(names)
    group.mask(names, names[:5])
    answers = group.answer(names[:5], names[:3])
    form = FixedPoint.of(group.plan)
    inputs = [group.inputs[name] for name in names[:5]]
    with pytest.raises(BadMessage):  # the key of the one that left is not found
        unmask(group.members, form, inputs, answers)
    whole = Group(6)
    whole.share(names)
    whole.mask(names, names)
    form = FixedPoint.of(whole.plan)
    answers = whole.answer(names, names[:3])
    try:
        found = unmask(whole.members, form, [whole.inputs[n] for n in names], answers)
    except BadMessage:
        return  # three of four shares gave no secret at all
    assert abs(found - true_sum(whole, names)).min() > 1


def test_no_input_of_one_device_is_seen_through_another_ones_masks() -> None:
    """Of one device's numbers and its masked ones nothing is alike, also if the numbers are 0."""
    group = Group(4)
    group.numbers["d0"] = bytes(len(group.numbers["d0"]))
    names = list(group.devices)
    group.share(names)
    group.mask(names, names)
    form = FixedPoint.of(group.plan)
    masked = form.read(group.inputs["d0"])
    assert len(set(masked.tolist())) == form.count
    assert (opened(group, names, names[:3]) == true_sum(group, names)).all()


def test_a_member_that_tells_a_wrong_share_of_a_key_is_found_out() -> None:
    group = Group(4)
    names = list(group.devices)
    group.share(names)
    group.mask(names, names[:3])
    first, *rest = group.answer(names[:3], names[:3])
    form = FixedPoint.of(group.plan)
    inputs = [group.inputs[n] for n in names[:3]]
    wrong = type(first)(first.device, first.group, first.self_masks, {"d3": "0" * 66})
    with pytest.raises(BadMessage):
        unmask(group.members, form, inputs, [wrong, *rest])
    missing = type(first)(first.device, first.group, first.self_masks, {})
    with pytest.raises(BadMessage, match="share of d3"):
        unmask(group.members, form, inputs, [*rest, missing])
