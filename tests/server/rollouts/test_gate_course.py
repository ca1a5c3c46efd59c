"""How a gate's figures and its evidence went, as the page draws them."""

from __future__ import annotations

from datetime import datetime, timezone

from hypothesis import given, settings
from hypothesis import strategies as st

from pilotwave_protocol import shadow
from pilotwave_server.dashboard.gate_pictures import Verdict, picture_of
from pilotwave_server.rollouts.engine.gate_course import FEWEST, MOST, course_of
from pilotwave_server.rollouts.gates.data import Evidence, Sample
from pilotwave_server.rollouts.gates.judge import judge
from pilotwave_server.rollouts.policies.policy import MetricGate
from tests.server.rollouts.gates.test_metric_gate import windows
from tests.server.rollouts.gates.test_paired_gate import BAD, STATISTIC

GATE = MetricGate("latency", "latency_ms", slice_by=("board",))
NAME = "latency_ms p95"


def in_time(samples: list[Sample]) -> list[Sample]:
    return [s._replace(at=900.0 * n, calls=100) for n, s in enumerate(samples)]


def test_both_versions_are_told_as_changes_and_the_evidence_ends_where_the_gate_is() -> None:
    samples = in_time(windows(new=6, old=40, shift=0.5))
    evidence = Evidence(samples={NAME: samples})
    found = course_of(GATE, evidence)
    assert found is not None
    assert (found.looks_at, found.unit, found.is_change, found.is_paired) == (
        NAME,
        "%",
        True,
        False,
    )
    assert len(found.moments) == MOST
    last = found.moments[-1]
    assert last.new is not None
    assert 40 < last.new < 65
    numbers = judge(GATE, evidence)[0].numbers
    assert last.evidence == numbers["evidence"] >= found.stops_at == numbers["stops_at"]
    assert found.moments[0].evidence is None  # old devices only
    assert found.moments[0].new is None
    assert found.moments[0].old is not None
    assert found.moments[0].allowed == found.moments[0].old + 10


def test_a_candidate_in_shadow_is_drawn_beside_the_version_in_use() -> None:
    expected = {"disagreement": (6, None, 2), "latency": (10, 0, 5), "memory": (2, 1, 1.5)}
    for what, figures in expected.items():
        gate, metric, bad, _ = BAD[what]
        samples = in_time([Sample(n % 3, True, bad, None) for n in range(24)])
        name = f"{metric} {STATISTIC.get(metric, 'mean')}"
        found = course_of(gate, Evidence(samples={name: samples}, min_calls=500))
        assert found is not None
        last = found.moments[-1]
        rounded = tuple(v if v is None else round(v, 6) for v in (last.new, last.old, last.allowed))
        assert rounded == figures
        assert found.is_paired
        assert last.evidence is not None
        assert last.evidence >= found.stops_at == 100


def test_without_a_window_of_the_version_there_is_no_course() -> None:
    assert course_of(GATE, Evidence()) is None
    assert course_of(GATE, Evidence(samples={NAME: windows(new=0, old=9)})) is None


def test_many_windows_are_judged_at_fewer_moments() -> None:
    gate, _, bad, _ = BAD["disagreement"]
    samples = in_time([Sample(n % 50, True, bad, None) for n in range(80_000)])
    found = course_of(gate, Evidence(samples={f"{shadow.DISAGREE} mean": samples}))
    assert found is not None
    assert FEWEST <= len(found.moments) < MOST


figures = st.floats(allow_nan=False, allow_infinity=False)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.builds(
            Sample,
            device=st.integers(0, 9),
            new=st.booleans(),
            value=figures,
            reference=st.none() | figures,
            at=st.floats(0, 4e9),
        ),
        max_size=30,
    ),
    st.booleans(),
)
def test_whatever_devices_send_lies_within_the_picture(samples: list[Sample], over: bool) -> None:
    found = course_of(GATE, Evidence(samples={NAME: samples}))
    verdict = Verdict("FAIL", datetime.fromtimestamp(2e9, timezone.utc)) if over else None
    if found is None:
        return
    drawn = picture_of(found, verdict)
    for line in (drawn.new, drawn.old, drawn.allowed, drawn.band, drawn.evidence):
        for place in line.split():
            x, y = map(float, place.split(","))
            assert 60 <= x <= 468
            assert 12 <= y <= 246
    assert len(drawn.rows) <= 8
