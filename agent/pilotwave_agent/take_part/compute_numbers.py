"""Have a confined child compute what a training plan asks for, of the examples that are kept."""

from __future__ import annotations

import tempfile
from pathlib import Path

from pilotwave_agent.effects.trial import terms_of
from pilotwave_agent.selftest import learn_from
from pilotwave_agent.take_part.device import CannotTakePart, Device
from pilotwave_agent.take_part.gather import gather
from pilotwave_protocol.learning.decline import Why
from pilotwave_protocol.learning.plan import TrainingPlan
from pilotwave_protocol.manifest import Variant
from pilotwave_protocol.messages.check_in import Installed
from pilotwave_protocol.tensortypes import NUMBERS


def compute_numbers(
    device: Device,
    plan: TrainingPlan,
    version: Installed,
    variant: Variant,
    head: bytes | None = None,
) -> tuple[int, bytes]:
    """Return of how many examples they are, and the numbers; `head` is the one that `sgd` goes on
    from. Raises `CannotTakePart`."""
    with tempfile.TemporaryDirectory(prefix="pw-learn-") as scratch:
        examples = Path(scratch) / "examples.safetensors"
        count = gather(device.layout.examples(plan.model), examples, plan)
        before = Path(scratch) / "head.bin" if head is not None else None
        if before is not None and head is not None:
            before.write_bytes(head)
        out = Path(scratch) / "out"
        out.mkdir()
        learnt = learn_from(
            device.layout.version(plan.model, version),
            variant,
            examples,
            plan.to_bytes(),
            out,
            *terms_of(device.config, variant),
            head=before,
        )
        numbers = (out / NUMBERS).read_bytes()
    if learnt != count or len(numbers) != plan.update_bytes:
        raise CannotTakePart(
            f"plan {plan.plan}: the child wrote {len(numbers)} bytes", Why.CHILD_FAILED
        )
    return count, numbers
