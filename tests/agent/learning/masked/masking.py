"""A registry that carries out a masked round with one real device and four that it plays itself."""

from __future__ import annotations

from pilotwave_agent.learning.masked import steps
from pilotwave_agent.learning.masked.state import MaskedState
from pilotwave_agent.learning.masked.steps import Me
from pilotwave_protocol import strictjson
from pilotwave_protocol.digest import sha256_hex
from pilotwave_protocol.learning.masked.fixed_point import FixedPoint
from pilotwave_protocol.learning.masked.members import Members, verified_keys
from pilotwave_protocol.learning.masked.messages import (
    Answer,
    MaskedInput,
    Shares,
    split_message,
)
from pilotwave_protocol.learning.masked.step import Step, Wants
from pilotwave_protocol.learning.plan import TrainingPlan
from pilotwave_protocol.learning.statistics import Floats
from pilotwave_server.learning.masked.unmask import unmask
from tests.agent.learning.asking import AskingRegistry
from tests.peers.registry import Reply, problem
from tests.protocol.learning.masked.group import me


class MaskingRegistry(AskingRegistry):
    """`sent` is what came, each kind by its attempt. `lies` is what it says instead, once; with
    `refuses` it keeps nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.plan: TrainingPlan | None = None
        self.begin()

    def begin(self, plan: TrainingPlan | None = None) -> None:
        """Forget all, and ask for this plan."""
        self.plan = plan
        self.waiting = [plan.to_bytes()] if plan else []
        self.attempt = 1
        self.keys: list[bytes] = []
        self.shares: list[bytes] = []
        self.inputs: list[bytes] = []
        self.answers: list[bytes] = []
        self.lies: Step | None = None
        self.others: dict[str, MaskedState] = {}
        self.who: dict[str, Me] = {}
        self.members: Members | None = None
        self.device = ""

    def answer(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Reply:
        if path.startswith("/device/v1/masked/") and self.plan is not None:
            assert path.rpartition("/")[2] == sha256_hex(self.plan.to_bytes())
            return Reply(200, strictjson.dumps((self.lies or self.step()).plain()))
        if path == "/device/v1/masked":
            self._keep(body)
            return problem(503, "round_full") if self.refuses else Reply(204)
        return super().answer(method, path, headers, body)

    def step(self) -> Step:
        """What an honest server asks for now."""
        if not self.keys:
            return Step(Wants.KEYS)
        assert self.members is not None
        if not self.shares:
            of = tuple(member.envelope for member in self.members.of)
            return Step(Wants.SHARES, self.attempt, members=of)
        if not self.inputs:
            boxes = {name: state.shares for name, state in self.others.items()}
            return Step(Wants.INPUT, self.attempt, boxes=boxes)
        if not self.answers:
            return Step(Wants.ANSWER, self.attempt, survivors=tuple(self.members.names))
        return Step(Wants.OVER, self.attempt)

    def lose(self) -> None:
        """Say that the group is lost, and take the keys of the next one."""
        self.lies = Step(Wants.LOST, self.attempt)

    def _keep(self, body: bytes) -> None:
        if self.refuses:
            return
        envelope, _ = split_message(body)
        if self.members is None or self.lies is not None:
            self.lies, self.members = None, None
            self._make_group(envelope)
            return
        match self.members.read(envelope, self.device):
            case Shares():
                self.shares.append(body)
            case MaskedInput():
                self.inputs.append(body)
            case Answer():
                self.answers.append(body)

    def _make_group(self, envelope: bytes) -> None:
        assert self.plan is not None
        own = verified_keys(envelope)
        self.keys.append(envelope)
        self.device, self.attempt = own.name, own.keys.attempt
        self.who = {f"other-{n}": me(f"other-{n}", self.plan, own.keys.fleet) for n in range(4)}
        states = {name: steps.make_keys(who, 1) for name, who in self.who.items()}
        envelopes = [envelope, *(state.keys for state in states.values())]
        self.others = {
            name: steps.make_shares(self.who[name], state, envelopes)
            for name, state in states.items()
        }
        self.members = Members.listed([verified_keys(one) for one in envelopes])

    def sum_of_all(self) -> Floats:
        """Play the others to the end, whose numbers are 0, and take the masks off."""
        assert self.plan is not None
        assert self.members is not None
        form, zeros = FixedPoint.of(self.plan), bytes(self.plan.update_bytes)
        shares = split_message(self.shares[-1])[0]
        inputs, answers = [split_message(self.inputs[-1])[1]], []
        for name, who in self.who.items():
            boxes = {n: s.shares for n, s in self.others.items() if n != name}
            state = steps.take_boxes(who, self.others[name], {**boxes, self.device: shares})
            inputs.append(split_message(steps.masked_input(who, state, zeros))[1])
            made = steps.make_answer(who, state, self.members.names).answer
            answers.append(self.members.read(made, name))
        answers[0] = self.members.read(split_message(self.answers[-1])[0], self.device)
        return unmask(self.members, form, inputs, [a for a in answers if isinstance(a, Answer)])
