"""A report fits what its registry takes, however many models a device has."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pilotwave_agent.check_in.build import check_in_of
from pilotwave_agent.core.state import DeviceState, ModelSlot, Order
from pilotwave_protocol import dsse
from pilotwave_protocol.messages.check_in import (
    CHECK_IN_TYPE,
    MAX_CHECK_IN_BYTES,
    MAX_REPORTS,
    SMALL_CHECK_IN_BYTES,
    CheckIn,
    Installed,
    parse_check_in,
)
from pilotwave_protocol.messages.directive import SMALL_ENTRIES
from pilotwave_protocol.states import ModelState

KEY = Ed25519PrivateKey.generate()


def slot(number: int, *, bad: bool) -> ModelSlot:
    def version(counter: int) -> Installed:
        return Installed(f"1.{counter}.0+{'b' * 40}", f"{number:064x}", "onnx-int8", counter)

    model = f"pump-{number:04d}-{'v' * 50}"
    both = {"current": version(2), "previous": version(1)}
    if not bad:
        return ModelSlot(model, ModelState.HEALTHY, **both)
    said = {"reason": "selftest_error", "detail": "é" * 500}
    return ModelSlot(model, ModelState.FAILED, **both, candidate=version(3), **said)


def report_of(state: DeviceState, max_bytes: int) -> tuple[CheckIn, int]:
    found = check_in_of(
        state,
        fleet="acme",
        device="gw-1",
        seq=1,
        agent="0.1.0",
        facts=None,
        progress={},
        max_bytes=max_bytes,
    )
    raw = found.to_bytes()
    assert parse_check_in(raw) == found
    return found, len(dsse.sign(CHECK_IN_TYPE, raw, KEY))


@pytest.mark.parametrize("bad", [False, True])
@pytest.mark.parametrize("count", [1, 63, 64, 65, 256, 512, 2000])
def test_no_number_of_models_makes_a_report_too_large(count: int, bad: bool) -> None:
    slots = [slot(n, bad=bad) for n in range(count)]
    state = DeviceState(models={s.model: s for s in slots})
    small, size = report_of(state, SMALL_CHECK_IN_BYTES)
    assert size <= SMALL_CHECK_IN_BYTES
    assert 32 <= len(small.models) <= SMALL_ENTRIES or len(small.models) == count
    large, size = report_of(state, MAX_CHECK_IN_BYTES)
    assert size <= MAX_CHECK_IN_BYTES
    assert len(large.models) == min(count, MAX_REPORTS)


def test_what_is_ordered_and_what_is_in_trouble_is_said_first() -> None:
    slots = [slot(n, bad=n > 1990) for n in range(2000)]
    last = slots[-1].model
    middle = slots[1000]
    order = Order(middle.model, "1.2.0", "0" * 64, 1, 2, "onnx-int8")
    models = {s.model: s for s in slots}
    found, _ = report_of(DeviceState(models=models, orders={middle.model: order}), 64 << 10)
    assert {last, middle.model} <= {m.model for m in found.models}
