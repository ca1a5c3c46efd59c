"""Judge a gate by evidence. Pure."""

from __future__ import annotations

from pilotwave_server.rollouts.evidence import Evidence
from pilotwave_server.rollouts.gates.verdict import Verdict, Word
from pilotwave_server.rollouts.policies.document import InstallGate, MetricGate


def judge(gate: InstallGate | MetricGate, evidence: Evidence) -> list[Verdict]:
    """Return the verdict of the whole first, then those of slices."""
    if isinstance(gate, MetricGate):
        sentence = f"no device reports {gate.metric}"
        return [Verdict(gate.name, Word.INCONCLUSIVE, sentence)]
    failed = evidence.failed + evidence.silent
    reported = failed + evidence.healthy
    numbers = {"failed": failed, "reported": reported, "bound": gate.max_failure_rate}
    share = failed / reported if reported else 0.0
    told = f"{failed} of {reported} failed; at most {gate.max_failure_rate:.0%} may"
    if share > gate.max_failure_rate:
        return [Verdict(gate.name, Word.FAIL, told, numbers)]
    return [Verdict(gate.name, Word.PASS, told, numbers)]
