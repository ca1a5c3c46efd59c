"""What a device refuses in a masked round: a server that lies learns nothing more by it."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable

import pytest

from pilotwave_agent.learning.masked import steps
from pilotwave_agent.learning.masked.state import MaskedState, Phase
from pilotwave_protocol.errors import PilotwaveError
from pilotwave_protocol.learning.masked.messages import Keys, parse_message
from pilotwave_protocol.learning.plan import TrainingPlan
from tests.protocol.learning.masked.group import Group, me, plan_for

ALL = ["d0", "d1", "d2", "d3", "d4"]


@pytest.fixture
def group() -> Group:
    return Group(5)


def masked(group: Group) -> Group:
    group.share(ALL)
    group.mask(ALL, ALL)
    return group


def keys_of(
    name: str, plan: TrainingPlan, *, fleet: str = "field", attempt: int = 1, **changes: object
) -> bytes:
    """Well-signed keys, with something else in them."""
    who = me(name, plan, fleet)
    made = steps.make_keys(who, attempt)
    message = Keys(**{**vars(_keys(made.keys)), **changes})  # type: ignore[arg-type]  # names as given
    return who.sign(message)


def _keys(envelope: bytes) -> Keys:
    found = parse_message(base64.b64decode(json.loads(envelope)["payload"]))
    assert isinstance(found, Keys)
    return found


def swapped(group: Group, other: bytes) -> list[bytes]:
    return [*group.envelopes[:4], other]


SMALL_ORDER = "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"
LISTS: dict[str, tuple[Callable[[Group], list[bytes]], str]] = {
    "one less": (lambda g: g.envelopes[:4], "group of 5"),
    "one more": (lambda g: [*g.envelopes, keys_of("d9", g.plan)], "group of 5"),
    "one twice": (lambda g: swapped(g, g.envelopes[1]), "same device"),
    "without this one": (lambda g: [keys_of("d9", g.plan), *g.envelopes[1:]], "has sent"),
    "this one with other keys": (lambda g: [keys_of("d0", g.plan), *g.envelopes[1:]], "has sent"),
    "of another plan": (lambda g: swapped(g, keys_of("d4", plan_for(6))), "this round of this"),
    "of another round": (lambda g: swapped(g, keys_of("d4", g.plan, round=2)), "this round"),
    "of another fleet": (lambda g: swapped(g, keys_of("d4", g.plan, fleet="x")), "this round"),
    "not signed by the key in them": (
        lambda g: swapped(g, keys_of("d4", g.plan, key=_keys(g.envelopes[4]).key)),
        "valid signature",
    ),
    "somebody else's mask": (
        lambda g: swapped(g, keys_of("d4", g.plan, mask=_keys(g.envelopes[1]).mask)),
        "same mask",
    ),
    "a channel that is a mask": (
        lambda g: swapped(g, keys_of("d4", g.plan, channel=_keys(g.envelopes[1]).mask)),
        "one use",
    ),
    "a mask that everybody knows": (
        lambda g: swapped(g, keys_of("d4", g.plan, mask=SMALL_ORDER)),
        "small order",
    ),
    "a channel that everybody knows": (
        lambda g: swapped(g, keys_of("d4", g.plan, channel=SMALL_ORDER)),
        "X25519",
    ),
    "no keys": (lambda g: swapped(g, b"{}"), "exactly payloadType"),
}


@pytest.mark.parametrize("name", LISTS)
def test_a_group_that_is_not_as_the_plan_says_is_refused(group: Group, name: str) -> None:
    make, words = LISTS[name]
    state = group.states["d0"]
    with pytest.raises(PilotwaveError, match=words):
        steps.make_shares(group.devices["d0"], state, make(group))
    assert state.shares == b""


def test_a_device_is_in_one_group_with_its_keys(group: Group) -> None:
    group.share(["d0"])
    sent = group.states["d0"]
    again = steps.make_shares(group.devices["d0"], sent, list(reversed(group.envelopes)))
    assert again is sent
    with pytest.raises(PilotwaveError, match="members that this device was told before"):
        steps.make_shares(group.devices["d0"], sent, swapped(group, keys_of("d4", group.plan)))


def test_boxes_of_another_or_for_another_are_refused(group: Group) -> None:
    group.share(ALL)
    me_, state = group.devices["d0"], group.states["d0"]
    boxes = group.boxes(ALL, "d0")
    other = Group(5)
    other.share(ALL)
    for wrong, words in (
        ({**boxes, "d1": boxes["d2"]}, "valid signature"),
        ({**boxes, "d1": other.states["d1"].shares}, "valid signature"),
        ({**boxes, "d9": boxes["d1"]}, "no member"),
        ({name: boxes[name] for name in ("d1", "d2")}, "4 members or more"),
        ({**boxes, "d1": group.states["d1"].keys}, "what d1 says"),
    ):
        with pytest.raises(PilotwaveError, match=words):
            steps.take_boxes(me_, state, wrong)


def test_masks_are_between_the_same_members_whatever_is_said_later(group: Group) -> None:
    group.share(ALL)
    me_, boxes = group.devices["d0"], group.boxes(ALL, "d0")
    state = steps.take_boxes(me_, group.states["d0"], boxes)
    first = steps.masked_input(me_, state, group.numbers["d0"])
    assert (
        steps.masked_input(me_, steps.take_boxes(me_, state, boxes), group.numbers["d0"]) == first
    )
    del boxes["d4"]
    with pytest.raises(PilotwaveError, match="told before"):
        steps.take_boxes(me_, state, boxes)


@pytest.mark.parametrize(
    ("survivors", "words"),
    [
        (ALL[:3], "4 members or more"),
        (ALL[1:], "this one among them"),
        ([*ALL, "d9"], "this one among them"),
        ([], "this one among them"),
        (["d0"] * 5, "4 members or more"),
    ],
)
def test_a_question_that_would_open_too_little_is_refused(
    group: Group, survivors: list[str], words: str
) -> None:
    masked(group)
    with pytest.raises(PilotwaveError, match=words):
        group.asked("d0", survivors)


def test_a_question_before_the_numbers_are_sent_is_refused(group: Group) -> None:
    group.share(ALL)
    with pytest.raises(PilotwaveError, match="before this device"):
        group.asked("d0", ALL)


def test_a_device_answers_one_list_and_never_tells_both_secrets_of_a_member(group: Group) -> None:
    masked(group)
    (answer,) = group.answer(ALL[:4], ["d0"])
    assert set(answer.self_masks) == set(ALL[:4])
    assert set(answer.mask_keys) == {"d4"}
    again = group.asked("d0", list(reversed(ALL[:4])))
    assert again.answer == group.states["d0"].answer
    with pytest.raises(PilotwaveError, match="left that this device was told before"):
        group.asked("d0", ALL)
    with pytest.raises(PilotwaveError, match="told before"):
        group.asked("d0", [*ALL[:3], "d4"])


def test_after_the_answer_no_secret_is_left_on_the_device(group: Group) -> None:
    masked(group)
    before = group.states["d0"]
    group.answer(ALL, ["d0"])
    after = group.states["d0"]
    assert after.phase is Phase.ANSWERED
    kept = after.to_bytes().decode()
    for secret in (before.seed, before.mask_key, before.channel_key):
        assert secret.hex() not in kept
    assert (after.held, after.seed, after.mask_key, after.channel_key) == ({}, b"", b"", b"")


def test_a_new_attempt_has_new_keys(group: Group) -> None:
    first, second = (steps.make_keys(group.devices["d0"], n) for n in (1, 2))
    assert first.mask_key != second.mask_key
    assert first.channel_key != second.channel_key


def test_what_is_remembered_is_read_back(group: Group) -> None:
    masked(group)
    for state in (group.states["d1"], steps.make_keys(group.devices["d0"], 2)):
        assert MaskedState.from_bytes(state.to_bytes()) == state
    group.answer(ALL, ["d1"])
    state = group.states["d1"]
    assert MaskedState.from_bytes(state.to_bytes()) == state
    for wrong in (b"", b"{}", b"[]", state.to_bytes()[:-5]):
        with pytest.raises(ValueError, match=r"."):
            MaskedState.from_bytes(wrong)


def test_two_groups_have_other_masks_for_the_same_numbers(group: Group) -> None:
    masked(group)
    other = Group(5)
    other.numbers = group.numbers
    masked(other)
    assert group.inputs["d0"][:64] != other.inputs["d0"][:64]
