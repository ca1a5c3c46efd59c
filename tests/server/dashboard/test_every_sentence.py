"""Whatever a maker of sentences can say is read in Chinese on the Chinese page.

The sentences are found by running the makers over many inputs; those of refusals, which need a
database each, by reading what the sources raise.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from datetime import timedelta
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import pilotwave_server
from pilotwave_protocol import names
from pilotwave_protocol.durations import span
from pilotwave_protocol.errors import BadName
from pilotwave_protocol.messages.directive import Entry
from pilotwave_protocol.states import Reason
from pilotwave_server.dashboard import i18n
from pilotwave_server.dashboard.catalogue.reasons import REASONS
from pilotwave_server.dashboard.sentences import translated
from pilotwave_server.recovery.ahead import Ahead, Numbers
from pilotwave_server.rollouts.assignments.capacity import left_out
from pilotwave_server.rollouts.assignments.explain import Turn, why
from pilotwave_server.rollouts.assignments.resolve import Wait
from pilotwave_server.rollouts.engine.actions import PlannedStep, Tell
from pilotwave_server.rollouts.engine.picture import OpenWave, Picture
from pilotwave_server.rollouts.engine.plan import plan
from pilotwave_server.rollouts.gates.data import Evidence, Outcomes
from pilotwave_server.rollouts.gates.judge_install import judge_install
from pilotwave_server.rollouts.gates.judge_metric import judge_metric
from pilotwave_server.rollouts.gates.judge_paired import judge_paired
from pilotwave_server.rollouts.gates.verdict import Verdict, Word
from pilotwave_server.rollouts.leases import LeaseCounts, limits
from pilotwave_server.rollouts.policies.builtin import TEXTS, builtin
from pilotwave_server.rollouts.policies.faults import PolicyInvalid
from pilotwave_server.rollouts.policies.parse import parse_policy
from pilotwave_server.rollouts.policies.policy import (
    Canary,
    Deadlines,
    InstallGate,
    OnFailure,
    Pace,
    Wave,
)
from pilotwave_server.rollouts.policies.shadow import ShadowPart
from pilotwave_server.rollouts.policies.wave_words import rule_of
from pilotwave_server.rollouts.policies.yaml_text import read_text
from pilotwave_server.rollouts.states import RolloutState
from pilotwave_server.selector import BadSelector, parse
from tests.server.rollouts import test_plan, worlds
from tests.server.rollouts.gates import test_paired_gate as paired
from tests.server.rollouts.gates.test_metric_gate import GATE, windows
from tests.server.rollouts.test_policy_grammar import FULL
from tests.server.rollouts.test_resolve import SHADOW_CASES, shadow_case, worlds_with_device

CHINESE = i18n.translations("zh-Hans").gettext
# words that no name, code or unit has, outside what is typed or quoted
ENGLISH = re.compile(
    r"\b(?:the|is|are|was|has|have|no|by|not|it|its|this|that|with|expected|for)\b"
)
TYPED = re.compile(r"`[^`]*`|'[^']*'|[\w.-]+/[\w./-]+")


def chinese(sentence: str) -> str:
    """The sentence in Chinese, with no English word left in it."""
    told = translated(sentence, CHINESE)
    assert told is not None, sentence
    assert not ENGLISH.search(TYPED.sub("", told)), (sentence, told)
    return told


def verdicts() -> Iterator[Verdict]:
    """Verdicts of each gate, over outcomes and windows of every kind."""
    gate = InstallGate(slice_by=("board", "fact.board"))
    counts = (0, 1, 40)
    for healthy, failed, silent, under_way in product(counts, repeat=4):
        outcomes = Outcomes(healthy, failed, silent, under_way)
        slices = {("board", "pi"): outcomes, ("fact.board", "nano 4 GB"): outcomes}
        whole = replace(outcomes, healthy=healthy + 9 * under_way)
        reasons = {"selftest_load": failed, "app_silent": 1} if failed else {}
        yield from judge_install(gate, Evidence(whole, slices=slices, reasons=reasons))
    yield from _metric_verdicts()
    yield from _paired_verdicts()


def _paired_verdicts() -> Iterator[Verdict]:
    """Verdicts of each gate of a shadow wave."""
    for (gate, metric, bad, good), least in product(paired.BAD.values(), (1, 3)):
        gate = replace(gate, min_devices=least)
        for devices, value, calls, each in product((0, 1, 3, 20), (bad, good), (9, 900), (1, 40)):
            samples = paired.windows(range(devices), value, calls=calls, each=each)
            mixed = paired.windows(range(devices // 3), bad, calls=calls, each=each)
            for found in (samples, mixed + samples[devices // 3 :]):
                for known in ({}, paired.OVER, {"took": 99, "listen_s": 60.0}):
                    yield paired.verdict(gate, metric, found, **known)
        for in_use, outcomes in product((None, 60.0, 9e5), (Outcomes(), Outcomes(failed=1))):
            dropped = {"shadow_dropped mean": paired.windows(range(2), 1.0)}
            known = {"in_use_s": in_use, "outcomes": outcomes}
            yield from judge_paired(gate, Evidence(samples=dropped, **known))
            yield paired.verdict(gate, metric, [], **known)


def _metric_verdicts() -> Iterator[Verdict]:
    gates = [
        replace(GATE, min_devices=least, min_windows=wanted, slice_by=("board", "fact.board"))
        for least, wanted in ((1, 1), (3, 6), (50, 6), (3, 900), (50, 900))
    ]
    arms = [(0, 0), (0, 9), (1, 0), (3, 24), (4, 2), (16, 1), (9, 0)]
    for gate, (new, old), shift, each in product(gates, arms, (-0.3, 0.2, 2.0), (1, 6)):
        samples = [
            s._replace(slices={**s.slices, "fact.board": "x" if s.device % 9 < 2 else "y"})
            for s in windows(new=new, old=old, shift=shift, each=each)
        ]
        for reference in (True, False):
            given = samples if reference else [s._replace(reference=None) for s in samples]
            yield from _judged_in_time(gate, given, new)


def _judged_in_time(gate: Any, samples: Any, new: int) -> Iterator[Verdict]:
    name = f"{gate.metric} {gate.statistic}"
    for quiet, in_use, took in ((0.0, 0.0, new), (9e9, 4000.0, new), (0.0, 9e5, 9 * new)):
        for outcomes in (Outcomes(healthy=new), Outcomes(failed=1), Outcomes(under_way=1)):
            yield from judge_metric(
                gate,
                Evidence(
                    outcomes,
                    samples={name: samples},
                    quiet_s=quiet,
                    in_use_s=in_use if new or quiet else None,
                    took=took,
                    heard_s={name: in_use},
                    listen_s=60.0,
                ),
            )


@pytest.fixture(scope="module")
def judged() -> list[Verdict]:
    """One verdict for each form of a sentence."""
    forms = {re.sub(r"\d[\d.,]*", "0", v.sentence): v for v in verdicts()}
    return list(forms.values())


def test_every_verdict_of_every_gate_is_translated(judged: list[Verdict]) -> None:
    assert {v.word for v in judged} == set(Word)
    assert len(judged) > 100
    for verdict in judged:
        chinese(verdict.sentence)


def pictures(judged: list[Verdict]) -> Iterator[Picture]:
    """Rollouts in every state that the engine looks at."""
    waves = [
        Wave("ten", percent=10, min_sample=2, soak_s=600),
        Wave("2 devices", count=2, manual=True),
        Wave("lab", canary=Canary(group="lab")),
        Wave("all", percent=100),
    ]
    late = test_plan.ago(days=9)
    opened = [None, *(OpenWave(n, late, soaking) for n in range(4) for soaking in (None, late))]
    soon = OpenWave(0, late, test_plan.NOW - timedelta(seconds=1))
    few = [(), *((v,) for v in _one_of_each(judged))]
    for failure, opened_wave, verdict in product(OnFailure, [*opened, soon], few):
        policy = test_plan.policy(
            *waves, on_failure=failure, deadlines=Deadlines(unreached_s=86_400)
        )
        for state, size, left in product(("running", "paused"), (None, 0, 9), (None, 0, 1, 5)):
            yield test_plan.picture(
                policy=policy,
                state=RolloutState(state),
                open=opened_wave,
                counts={"healthy": size or 0, "leased": left or 0},
                group="cams",
                size=size,
                left=left,
                verdicts=verdict,
            )
    yield from _special(policy)
    yield from _in_shadow()


def _in_shadow() -> Iterator[Picture]:
    for wave, (compared, comparing), size, failed, verdict in product(
        (test_plan.TRIED, test_plan.OPTIONAL),
        ((3, 3), (1, 3), (0, 0)),
        (0, 5),
        (0, 1),
        tuple(judge_install(InstallGate(), Evidence(Outcomes(failed=n)))[0] for n in (0, 40)),
    ):
        counts = {"healthy": 3, "failed": failed}
        known = {"compared": compared, "comparing": comparing, "size": size, "counts": counts}
        yield test_plan.in_shadow(wave, verdicts=(verdict,), **known)
        late = Deadlines(unreached_s=600)
        yield test_plan.in_shadow(wave, deadlines=late, verdicts=(verdict,), **known)


def _one_of_each(judged: list[Verdict]) -> list[Verdict]:
    return list({(v.word, v.slice is None): v for v in judged}.values())


def _special(policy: Any) -> Iterator[Picture]:
    withheld = "detector 1.1.0 was denied by an operator: broken"
    kept = (("an operator pinned it there", 1), ("no other version may be offered to it", 2))
    for state, word in product(("scheduled", "running"), (None, withheld)):
        yield test_plan.picture(state=RolloutState(state), withheld=word, end_at=test_plan.NOW)
    for still_on, unheard, why_kept in product((0, 1, 2), (0, 1, 3), ((), kept)):
        yield test_plan.picture(
            state=RolloutState.ROLLING_BACK,
            still_on=still_on,
            unheard=unheard,
            kept=why_kept,
            rolling_back_since=test_plan.ago(days=2),
        )


def test_every_step_and_every_wait_of_the_engine_is_translated(judged: list[Verdict]) -> None:
    said: dict[str, str] = {}
    for picture in pictures(judged):
        for action in plan(picture, test_plan.M):
            told = [action.verdict["sentence"]] if isinstance(action, Tell) else []
            told += [action.sentence] if isinstance(action, PlannedStep) else []
            said |= {re.sub(r"\d[\d.,]*", "0", sentence): sentence for sentence in told}
    assert len(said) > 40
    for sentence in said.values():
        chinese(sentence)


outcomes = st.sampled_from(["failed", "rolled_back", "expired"])
details = st.sampled_from([None, "lease_expired", "left"])
turns = st.dictionaries(st.integers(0, 1), st.builds(Turn, outcomes, details), max_size=2)


@given(worlds_with_device(), st.sampled_from(["enrolled", "pending"]), st.booleans(), turns)
def test_why_a_device_runs_what_it_runs_is_translated(
    world: Any, state: str, conflict: bool, turns: dict[int, Turn]
) -> None:
    snapshot, device = world
    device = replace(device, conflict=conflict)
    for model in worlds.MODELS:
        found = why(device, snapshot, model=model, state=state, turns=turns)
        for sentence in (found.sentence, *(told for _, told in found.candidates)):
            chinese(sentence.replace("group group ", "group g"))


@pytest.mark.parametrize("case", SHADOW_CASES)
def test_why_a_device_tries_a_version_in_shadow_or_not_is_translated(case: str) -> None:
    snapshot, device = shadow_case(case)
    found = why(device, snapshot, model="detector", state="enrolled")
    for sentence in (found.sentence, *(told for _, told in found.candidates)):
        chinese(sentence)


def _broken(document: Any) -> Iterator[Any]:
    """The policy with each of its values replaced, taken out, or with a key beside it."""
    wrong = [None, [], {}, "", "x", "ü y", -1, 10**12, True, "0 2 30 2 *", "61 * * * *", "5"]
    for path in list(_paths(document)):
        for value in [*wrong, [{}], ["A"], ["a", "a"], ["a"] * 2000, {"wavez": 1}, {"k": 1}]:
            broken = deepcopy(document)
            place = broken
            for key in path[:-1]:
                place = place[key]
            place[path[-1]] = value
            yield broken


def _paths(value: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in items:
        yield (*before, key)
        if isinstance(item, dict | list):
            yield from _paths(item, (*before, key))


def test_every_fault_of_a_policy_is_translated() -> None:
    full = {**FULL, "deadlines": {"silent": "10m", "lease": "1h", "unreached": "2d"}}
    both = {"waves": [{"count": 1, "soak": "1m", "soak_s": 60}, {"canary": {"devices": []}}]}
    odd = [[], None, both, {**full, "pace": {"ramp_factor": 3}}, {**full, "nonsense": 1}]
    said = {}
    for document in [*odd, *_broken(full)]:
        for lines in (None, {"": 1, "waves": 2}):
            with_name = {"name": "other", "lines": lines}
            try:
                parse_policy(document, **with_name)
            except PolicyInvalid as error:
                said |= {str(fault): None for fault in error.faults} | {str(error): None}
    assert len(said) > 300
    for sentence in said:
        chinese(sentence)


@pytest.mark.parametrize(
    "text",
    ["&a 1", "a: 1\na: 2", "{[]: 1}", "!!set {a}", "!!python/none x", "x" * 70_000, "[" * 20],
)
def test_what_is_no_yaml_is_told_in_chinese(text: str) -> None:
    with pytest.raises(PolicyInvalid) as caught:
        read_text(text + "]" * text.count("["))
    told = translated(str(caught.value), CHINESE)
    assert told is not None, caught.value


@pytest.mark.parametrize(
    "text",
    [
        *("=", "a=", "a b", "a in b", "a in (", "a in (b", "a>x", "runs 5", "runs a=(", "a='b"),
        *("runs a>1", "* a", "fact.", "A=b", "a='\\x'", "runs a>x", "Fact.x=1", "a notin", "a<"),
        *("(", "a=,", "fact.Ä=1", "a=1, " * 80 + "a=", "a in (" + "b," * 300, "x" * 5000),
        "a=" + "b" * 300,
    ],
)
def test_what_is_wrong_with_a_selector_is_told_in_chinese(text: str) -> None:
    with pytest.raises((BadSelector, BadName)) as caught:
        parse(text)
    chinese(str(caught.value))


NOT_ASKED = ("check_file_path", "check_sha256")  # no page asks for one
CHECKS = [
    getattr(names, name)
    for name in dir(names)
    if name.startswith("check_") and name not in NOT_ASKED
]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_what_is_wrong_with_a_name_is_told_in_chinese(check: Any) -> None:
    for value in ("", "A B", "fact.x y", "fact.x", "\n", "x" * 200):
        try:
            check(value)
        except BadName as error:
            chinese(str(error))


def test_every_reason_has_words_in_both_languages() -> None:
    for reason in (*Reason, *Wait):
        assert CHINESE(REASONS[reason]) != REASONS[reason]


def test_whom_a_wave_takes_how_fast_and_what_a_builtin_policy_says_is_translated() -> None:
    for name in TEXTS:
        policy = builtin(name)
        assert policy is not None
        chinese(policy.description)
    for canary in (
        Canary(("a", "b", "c", "d", "e", "f", "g")),
        Canary(selector="site=lab"),
        Canary(group="lab"),
    ):
        chinese(rule_of(Wave("w", canary=canary)))
    for count in (1, 12):
        chinese(rule_of(Wave("w", count=count)))
        chinese(rule_of(Wave("w", count=count, shadow=ShadowPart())))
    pace = Pace(max_in_flight=5, max_per_minute=2, ramp_start=1, min_available=0.9)
    for limit in limits(pace, LeaseCounts(1, 2, 3, 4), group_size=10):
        chinese(limit.sentence)


def test_what_a_restored_server_says_is_translated() -> None:
    seen = Ahead(Numbers(1, 1, 1, 1), Numbers(9, 9, 9, 9), devices=2, names=("cam-1", "cam-2"))
    for ahead in (seen, replace(seen, devices=1), replace(seen, devices=9, stray=True)):
        chinese(
            f"{ahead.sentence}: run `pilotwave-server restore --data FOLDER` if it was restored"
        )


def test_a_device_that_is_asked_to_run_too_many_models_says_so_in_chinese() -> None:
    asked = worlds.release()
    entries = [
        Entry(f"m{n}", "1", asked.target, asked.sha256, 1, 1, "a", "pin") for n in range(200)
    ]
    for sentence in left_out(entries, {}).values():
        chinese(sentence)


PAGES = ("attention", "dashboard", "devices", "groups", "operators", "rollouts", "webhooks")
FILES = ("scope.py", "registry/service.py", "deps.py")
ROOT = Path(pilotwave_server.__file__).parent


def refusals() -> Iterator[tuple[str, str]]:
    """What is raised, or handed to the class that is raised, where a page can ask for it: each
    with words in the places of what is filled in."""
    for path in [
        *(p for d in PAGES for p in sorted((ROOT / d).rglob("*.py"))),
        *map(ROOT.joinpath, FILES),
    ]:
        for node in ast.walk(ast.parse(path.read_text())):
            call = node.exc if isinstance(node, ast.Raise) else node
            if not isinstance(call, ast.Call):
                continue
            if call is node and not ast.unparse(call.func).startswith("super().__init__"):
                continue
            for argument in call.args[:2]:
                text = _text(argument)
                if text is not None and " " in text and text not in MADE_OF_OTHERS:
                    yield f"{path.relative_to(ROOT)}:{node.lineno}", text


SAMPLES = {
    "state": "rolled back",
    "held": "3 does_not_fit, 1 runtime_missing",
    "_canary_words(wave.canary)": "none is in the group lab",
    "because": "no older version was ever healthy there",
    "matched": "1,234 devices match now",
    "expected": "12 were",
    "who": ": cam-9 joined; cam-1, cam-2 left, and others",
    "', '.join(TEXTS)": "careful, standard",
    "_kind(address)": "link-local or reserved",
    "_WORDS[allowed]": "public and private addresses",
    "by": "group cams",
    "done": "approved",
    "called": " (ten)",
    "row.kind": "list",
    "who.ask": "ask an admin to run: pilotwave people bind ada",
}


def _text(node: ast.expr) -> str | None:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(
            str(part.value) if isinstance(part, ast.Constant) else _sample(part)
            for part in node.values
        )
    return None


def _sample(part: ast.expr) -> str:
    assert isinstance(part, ast.FormattedValue)
    words = ast.unparse(part.value)
    if "state" in words or "_words(" in words or words == "words":
        return SAMPLES["state"]
    return SAMPLES.get(words, "x1")


MADE_OF_OTHERS = ("selector, position x1: x1", "x1x1")
INSIDE = (
    # for programs, not pages
    "dashboard/rendering.py",
    "rollouts/bulk/routes.py",
    "rollouts/policies/kinds.py",
    "devices/enrolment.py",
)


@pytest.mark.parametrize(("where", "sentence"), list(refusals()))
def test_every_refusal_that_a_page_can_show_is_translated(where: str, sentence: str) -> None:
    if where.partition(":")[0] not in INSIDE:
        chinese(sentence)


def test_what_took_a_device_back_is_translated() -> None:
    told = chinese("taken back with rollout r3: rolled back: install: 1 device finished, 0 failed")
    assert told.startswith("随发布 r3 回退:")
    chinese("taken back with the rollout; it runs 1.0.0")


def test_lengths_of_time_in_a_wait_are_left_as_they_are() -> None:
    told = chinese(f"install: 1 device finished, 0 failed; this held for {span(5400)}")
    assert told.endswith("1h30m")
