"""Say, for people, what a training plan protects: who sees which numbers."""

from __future__ import annotations

from pilotwave_protocol.learning.plan import TrainingPlan


def what_it_protects(plan: TrainingPlan) -> str:
    """One sentence for a page or a terminal; docs/learning.md has the rest."""
    if plan.noise is not None:
        return (
            f"The result tells little of any one device (epsilon {plan.noise.epsilon}, delta"
            f" {plan.noise.delta}), and this server sees what each device sent, with its noise."
        )
    if plan.privacy.masked:
        return (
            f"This server sees sums over groups of {plan.privacy.group} devices, of which"
            f" {plan.privacy.threshold} or more took part, and of no device what it sent; a server"
            " that makes devices up could."
        )
    return "This server sees what each device sent, until the round ends."
