"""Which variant a class gets: one voice for each device, and none decides alone."""

from __future__ import annotations

import pytest

from pilotwave_protocol.figures import VariantFigures
from pilotwave_server.rollouts.choice.classes import class_of
from pilotwave_server.rollouts.choice.decide import Asked, Option, Voice, decide, to_ask
from pilotwave_server.rollouts.policies.choose import Choose
from pilotwave_server.rollouts.policies.faults import PolicyInvalid
from pilotwave_server.rollouts.policies.parse import parse_policy
from pilotwave_server.rollouts.policies.stored import store_policy, stored_policy

FAST = Choose("latency")
OPTIONS = [
    Option("fp32", 8_697, {"top1": 0.9593}),
    Option("int8", 2_526, {"top1": 0.96}),
    Option("tiny", 900, {"top1": 0.9}),
]


def figures(p05_ms: float, peak_mb: float = 20.0) -> VariantFigures:
    return VariantFigures(p05_ms=p05_ms, cpu_ms=p05_ms * 1.1, peak_mb=peak_mb)


def voice(device: str, **found: float | str) -> Voice:
    return Voice(
        device,
        {
            name: VariantFigures(failed=said) if isinstance(said, str) else figures(said)
            for name, said in found.items()
        },
    )


GOOD = [voice(f"cam-{n}", fp32=0.49, int8=0.29) for n in range(3)]


@pytest.mark.parametrize(
    ("voices", "chosen"),
    [
        # nothing is measured: the publisher's order
        ([], "fp32"),
        (GOOD, "int8"),
        (GOOD[:2], "int8"),
        # one voice counts for the device that it is of
        (GOOD[:1], "fp32"),
        # 8 % are no reason to change
        ([voice(f"cam-{n}", fp32=0.31, int8=0.29) for n in range(3)], "fp32"),
        # one of three lies by ten, either way
        ([*GOOD[:2], voice("liar", fp32=0.49, int8=2.9)], "int8"),
        ([voice("a", fp32=0.4, int8=0.9), voice("b", fp32=0.4, int8=0.9),
          voice("liar", fp32=0.4, int8=0.04)], "fp32"),
        # one of two keeps a change from coming
        ([GOOD[0], voice("liar", fp32=0.49, int8=2.9)], "fp32"),
        # the wrong processor: it agrees with nothing there
        ([voice(f"cam-{n}", fp32=0.49, int8="selftest_mismatch") for n in range(3)], "fp32"),
        ([*GOOD[:1], *(voice(f"x{n}", fp32=0.49, int8="selftest_mismatch") for n in range(2))],
         "fp32"),
        # the publisher's first does not run
        ([voice(f"cam-{n}", fp32="selftest_memory", int8=0.29) for n in range(3)], "int8"),
        # no device says that anything else runs
        ([voice(f"cam-{n}", fp32="selftest_memory") for n in range(3)], "fp32"),
    ],
)  # fmt: skip
def test_what_a_class_gets(voices: list[Voice], chosen: str) -> None:
    assert decide("other", OPTIONS[:2], voices, FAST).variant == chosen


def test_a_voice_counts_for_its_own_device_alone() -> None:
    assert decide("cam-0", OPTIONS[:2], GOOD[:1], FAST).variant == "int8"
    assert decide("cam-9", OPTIONS[:2], GOOD[:1], FAST).variant == "fp32"


def test_what_was_chosen_stands_until_something_is_better_by_the_margin() -> None:
    first = [voice(f"cam-{n}", fp32=10, int8=5, tiny=5.2) for n in range(2)]
    later = voice("cam-3", fp32=10, int8=5.1, tiny=4.9)
    assert decide("x", OPTIONS, [*first, later], FAST).variant == "int8"
    backwards = [voice(f"cam-{n}", fp32=10, int8=5.2, tiny=5) for n in range(2)]
    assert decide("x", OPTIONS, [*backwards, later], FAST).variant == "tiny"


@pytest.mark.parametrize(
    ("subject", "chosen"),
    [
        ({"top1": ">=0.955"}, "int8"),
        ({}, "tiny"),
        ({"peak_mb": "<=15"}, "tiny"),
        ({"top1": ">=0.9595", "peak_mb": "<=64"}, "int8"),
        ({"top1": ">=0.99"}, None),
        # nobody signed it: not known to hold
        ({"recall": ">=0.1"}, None),
        ({"bytes": "<=3000", "top1": ">=0.95"}, "int8"),
    ],
)
def test_bounds_on_what_is_signed_and_what_is_measured(
    subject: dict[str, str], chosen: str | None
) -> None:
    found = {"fp32": figures(0.49, 38), "int8": figures(0.29, 19), "tiny": figures(0.2, 10)}
    voices = [Voice(f"cam-{n}", found) for n in range(3)]
    assert decide("x", OPTIONS, voices, Choose("latency", subject)).variant == chosen


@pytest.mark.parametrize(
    ("minimise", "chosen"), [("bytes", "tiny"), ("memory", "int8"), ("energy", "fp32")]
)
def test_each_objective_looks_at_its_own_figure(minimise: str, chosen: str) -> None:
    found = {
        "fp32": VariantFigures(p05_ms=9, cpu_ms=1, peak_mb=30),
        "int8": VariantFigures(p05_ms=5, cpu_ms=2, peak_mb=10),
        "tiny": VariantFigures(p05_ms=5, cpu_ms=2, peak_mb=20),
    }
    voices = [Voice(f"cam-{n}", found) for n in range(3)]
    assert decide("x", OPTIONS, voices, Choose(minimise)).variant == chosen


def test_energy_is_looked_at_where_every_device_counted_it() -> None:
    found = {
        "fp32": VariantFigures(cpu_ms=1, energy_mj=8),
        "int8": VariantFigures(cpu_ms=2, energy_mj=4),
    }
    choice = decide("x", OPTIONS[:2], [Voice(f"c{n}", found) for n in range(2)], Choose("energy"))
    assert choice.variant == "int8"
    assert "4 mJ" in choice.sentence


@pytest.mark.parametrize(
    ("device", "voices", "sentence"),
    [
        ("x", GOOD, "int8: 0.29 ms (median of 3 devices of this class), 41 % less than fp32"),
        ("cam-0", GOOD[:1], "int8: 0.29 ms (measured on this device), 41 % less than fp32"),
        (
            "x",
            [],
            "too few devices of this class have measured it yet, so the publisher's order holds",
        ),
        (
            "x",
            [voice(f"c{n}", fp32=0.3, int8=0.29) for n in range(2)],
            "fp32: 0.3 ms (median of 2 devices of this class); none is 10 % better: "
            "int8 takes 0.29 ms",
        ),
        (
            "x",
            [voice(f"c{n}", fp32="selftest_load", int8=0.29) for n in range(2)],
            "int8: 0.29 ms (median of 2 devices of this class); "
            "fp32 does not run within the bounds here",
        ),
        (
            "x",
            [voice(f"c{n}", fp32=0.3, int8="selftest_load") for n in range(2)],
            "fp32: 0.3 ms (median of 2 devices of this class); no other variant was measured",
        ),
    ],
)
def test_the_numbers_are_said(device: str, voices: list[Voice], sentence: str) -> None:
    assert decide(device, OPTIONS[:2], voices, FAST).sentence == sentence


def test_where_one_variant_alone_keeps_what_was_signed_that_is_said() -> None:
    choice = decide("x", OPTIONS, [], Choose("latency", {"top1": ">=0.9595"}))
    sentence = "of the variants that fit, int8 alone keeps top1 >= 0.9595"
    assert (choice.variant, choice.sentence) == ("int8", sentence)


# --- whom to ask


def test_three_devices_of_a_class_compare_and_no_fourth() -> None:
    asked: list[Asked] = []
    for n in range(5):
        variants = to_ask(f"cam-{n}", "fp32", ["fp32", "int8"], asked)
        assert variants == (("fp32", "int8") if n < 3 else ())
        asked += [Asked(f"cam-{n}", name) for name in variants]


def test_no_device_fetches_more_than_two_others_and_each_variant_is_measured() -> None:
    options = [f"v{n}" for n in range(6)]
    asked: list[Asked] = []
    for n in range(20):
        variants = to_ask(f"cam-{n}", "v0", options, asked)
        assert len(variants) <= 3
        asked += [Asked(f"cam-{n}", name) for name in variants]
    assert all(sum(a.variant == name for a in asked) >= 3 for name in options)
    assert len({a.device for a in asked}) <= 8


def test_a_device_is_asked_once_and_nothing_is_asked_of_one_variant() -> None:
    assert to_ask("cam-0", "fp32", ["fp32"], []) == ()
    asked = [Asked("cam-0", "fp32")]
    assert to_ask("cam-0", "fp32", ["fp32", "int8"], asked) == ()


# --- classes


def test_a_class_is_of_what_decides_the_speed() -> None:
    facts = {"arch": "x86_64", "cpu.model": "N100", "cpu.avx2": True, "runtime.onnxruntime": "1.2"}
    same = {**facts, "hw": "another board", "memory_mb": 8, "disk_free_mb": 3}
    assert class_of(facts) == class_of(same)
    for changed in ({"runtime.onnxruntime": "1.3"}, {"cpu.avx512_vnni": True}, {"arch": "arm"}):
        assert class_of({**facts, **changed}) != class_of(facts)


# --- the policy's grammar

WAVES = [{"percent": 100}]


def test_a_policy_says_by_what_to_choose() -> None:
    subject = {"top1": ">=0.955", "peak_mb": "<=64"}
    said = {"minimise": "latency", "subject": subject, "keep": "20%"}
    policy = parse_policy({"name": "p", "waves": WAVES, "choose": said})
    assert policy.choose == Choose("latency", subject, 0.2)
    assert stored_policy(store_policy(policy)) == policy
    assert stored_policy({"name": "p", "waves": []}).choose is None


@pytest.mark.parametrize(
    ("said", "path", "words"),
    [
        ({}, "choose.minimise", "it is missing"),
        ({"minimise": "speed"}, "choose.minimise", "expected `latency` or `energy`"),
        ({"minimise": "latency", "keep": 2}, "choose.keep", "a share from 0% to 90%"),
        ({"minimise": "latency", "subject": []}, "choose.subject", "mapping of `figure: bound`"),
        (
            {"minimise": "latency", "subject": {"top1": 0.9}},
            "choose.subject.top1",
            'expected a bound as ">=0.955" or "<=64"; got 0.9',
        ),
        ({"minimise": "latency", "subject": {"To p": ">=1"}}, "choose.subject.To p", "expected"),
        ({"minimise": "latency", "smaller": 1}, "choose.smaller", "unknown key"),
    ],
)
def test_faults_name_their_place(said: dict[str, object], path: str, words: str) -> None:
    with pytest.raises(PolicyInvalid) as caught:
        parse_policy({"name": "p", "waves": WAVES, "choose": said})
    (fault,) = caught.value.faults
    assert fault.path == path
    assert words in fault.message
