"""Judge a gate by what is known. Pure, and safe to call on each report (docs/gates.md)."""

from __future__ import annotations

from pilotwave_server.rollouts.gates.data import Evidence
from pilotwave_server.rollouts.gates.judge_install import judge_install
from pilotwave_server.rollouts.gates.judge_metric import judge_metric
from pilotwave_server.rollouts.gates.judge_paired import judge_paired
from pilotwave_server.rollouts.gates.verdict import Verdict
from pilotwave_server.rollouts.policies.paired import PairedGate
from pilotwave_server.rollouts.policies.policy import Gate, MetricGate


def judge(gate: Gate, evidence: Evidence) -> list[Verdict]:
    """Return the verdict on the whole first, then one for each slice that the gate is asked by."""
    if isinstance(gate, PairedGate):
        return judge_paired(gate, evidence)
    if isinstance(gate, MetricGate):
        return judge_metric(gate, evidence)
    return judge_install(gate, evidence)
