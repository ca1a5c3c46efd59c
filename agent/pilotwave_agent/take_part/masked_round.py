"""Take part in a round whose numbers are masked: one visit goes as far as the server waits for.

Each step is on disk before it is sent, and sent again with the same bytes. The numbers are worked
out once, for both groups that a device may be in. When the answer is with the server, or the plan
is over, all is removed but the mark that this plan is answered. A device that has answered joins no
other group: of two sums that differ by it alone, the difference would be its own numbers.
"""

from __future__ import annotations

from pathlib import Path

from pilotwave_agent.host import lock
from pilotwave_agent.host.log import say
from pilotwave_agent.learning.masked import steps
from pilotwave_agent.learning.masked.state import MaskedState, Phase
from pilotwave_agent.learning.masked.steps import Me
from pilotwave_agent.net.masked_api import masked_step, send_masked
from pilotwave_agent.net.server_api import WaitingRound
from pilotwave_agent.rounds import Answered
from pilotwave_agent.take_part.compute_numbers import compute_numbers
from pilotwave_agent.take_part.device import LOCK_WAIT_S, CannotTakePart, Device
from pilotwave_agent.take_part.masked_files import NUMBERS, STATE, finish
from pilotwave_agent.take_part.trusted_plan import check_signed, current_version
from pilotwave_agent.version_folder import build_of
from pilotwave_protocol.digest import sha256_hex
from pilotwave_protocol.errors import BadMessage
from pilotwave_protocol.learning.masked.messages import MOST_ATTEMPTS, join_message
from pilotwave_protocol.learning.masked.step import Step, Wants
from pilotwave_protocol.learning.plan import TrainingPlan

_STEPS = 6
"""In one visit: a server that always wants something more is asked again at the next."""


class MaskedRound:
    """A device's part in the round of one plan."""

    def __init__(
        self, device: Device, plan: TrainingPlan, waiting: WaitingRound, sent: Path
    ) -> None:
        self._device, self._plan, self._sent = device, plan, sent
        self._digest, self._number = sha256_hex(waiting.plan), waiting.number

    def go_on(self) -> None:
        """Do what the server waits for now. Raises a `PilotwaveError`."""
        device = self._device
        if self._number != 1:
            raise CannotTakePart(f"plan {self._plan.plan} is masked, and has one round")
        with lock.held(device.layout.work_lock, "the agent's work", wait_s=LOCK_WAIT_S):
            fleet = check_signed(device, self._plan, self._digest)
        me = Me(fleet, device.who.device, device.who.key, self._plan, self._digest)
        for _ in range(_STEPS):
            if not self._take(me, masked_step(device.channel, device.token, self._digest)):
                return

    def _take(self, me: Me, step: Step) -> bool:
        """Take a step; say whether there may be a next one now."""
        state = self._state()
        if state is not None and state.phase is Phase.ANSWERED and step.wants is Wants.KEYS:
            raise BadMessage(f"plan {self._plan.plan} is answered")
        match step.wants:
            case Wants.WAIT:
                return False
            case Wants.OVER:
                self._finish()
                return False
            case Wants.LOST:
                return self._lost(me, state, step.attempt)
            case Wants.KEYS:
                state = state or self._begin(me)
                self._send(join_message(state.keys))
                return True
        if state is None or state.attempt != step.attempt:
            raise BadMessage(f"plan {self._plan.plan}: no keys were made for this group")
        return self._in_group(me, state, step)

    def _in_group(self, me: Me, state: MaskedState, step: Step) -> bool:
        if step.wants is Wants.SHARES:
            state = self._keep(state, steps.make_shares(me, state, step.members))
            self._send(join_message(state.shares))
            return True
        if step.wants is Wants.INPUT:
            state = self._keep(state, steps.take_boxes(me, state, step.boxes))
            numbers = self._device.disk.read(self._sent.with_suffix(NUMBERS))
            self._send(steps.masked_input(me, state, numbers))
            say(f"sent masked numbers for plan {self._plan.plan} of {self._plan.model}")
            return True
        state = self._keep(state, steps.make_answer(me, state, step.survivors))
        self._send(join_message(state.answer))
        self._finish()
        say(f"answered whose masks go, for plan {self._plan.plan} of {self._plan.model}")
        return False

    def _begin(self, me: Me) -> MaskedState:
        device, plan, disk = self._device, self._plan, self._device.disk
        with lock.held(device.layout.work_lock, "the agent's work", wait_s=LOCK_WAIT_S):
            version = current_version(device, plan)
            variant = build_of(disk, device.layout, version).variant
        _, numbers = compute_numbers(device, plan, version, variant)
        disk.make_dirs(self._sent.parent)
        disk.write_atomic(self._sent.with_suffix(NUMBERS), numbers)
        say(f"made numbers for plan {plan.plan} of {plan.model}")
        return self._keep(None, steps.make_keys(me, 1))

    def _lost(self, me: Me, state: MaskedState | None, attempt: int) -> bool:
        """Join another group, where this one is lost; a server that is late is not heard."""
        if state is not None and state.attempt > attempt:
            self._send(join_message(state.keys))
            return True
        if state is None or state.phase is Phase.ANSWERED or attempt == MOST_ATTEMPTS:
            self._finish()
            return False
        say(f"the group for plan {self._plan.plan} of {self._plan.model} is lost", level="warning")
        self._send(join_message(self._keep(state, steps.make_keys(me, attempt + 1)).keys))
        return True

    def _finish(self) -> None:
        told = Answered(self._plan.model, self._plan.plan, self._number)
        finish(self._device.disk, self._sent, told.to_bytes())

    def _state(self) -> MaskedState | None:
        try:
            return MaskedState.from_bytes(self._device.disk.read(self._sent.with_suffix(STATE)))
        except FileNotFoundError:
            return None

    def _keep(self, before: MaskedState | None, after: MaskedState) -> MaskedState:
        if after != before:
            self._device.disk.write_atomic(self._sent.with_suffix(STATE), after.to_bytes())
        return after

    def _send(self, message: bytes) -> None:
        send_masked(self._device.channel, self._device.token, message)
