"""What masked numbers cost: a device in a group of eight, and the server that takes the masks off.

CPU is that of one process; the numbers that are masked are worked out before.
"""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import datetime, timezone

import numpy as np
from _bench import Bench, main
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pilotwave_agent.learning.masked import steps
from pilotwave_agent.learning.masked.steps import Me
from pilotwave_protocol.digest import sha256_hex
from pilotwave_protocol.learning.masked.fixed_point import FixedPoint
from pilotwave_protocol.learning.masked.members import Members, verified_keys
from pilotwave_protocol.learning.masked.messages import Answer, join_message, split_message
from pilotwave_protocol.learning.masked.step import Step, Wants
from pilotwave_protocol.learning.plan import Aggregate, Base, Method, TrainingPlan
from pilotwave_protocol.learning.privacy import Mode, Privacy
from pilotwave_protocol.learning.statistics import write_numbers
from pilotwave_protocol.strictjson import dumps
from pilotwave_server.learning.masked.unmask import unmask

GROUP = 8
CLASSES = 10
DEVICE_S = 2.0
SERVER_S = 5.0
PLAN = TrainingPlan(
    model="digits",
    plan="masks",
    base=Base("1.0.0", "a" * 64, "onnx-fp32"),
    embedding="active",
    features=64,
    classes=CLASSES,
    method=Method.RIDGE,
    aggregate=Aggregate.SUM,
    clip="10",
    deadline=datetime(2027, 1, 31, tzinfo=timezone.utc),
    privacy=Privacy(Mode.MASKED, GROUP),
)


def measure(bench: Bench, features: int) -> None:
    plan = replace(PLAN, features=features)
    devices = [
        Me("field", f"d{n}", Ed25519PrivateKey.generate(), plan, sha256_hex(plan.to_bytes()))
        for n in range(GROUP)
    ]
    form = FixedPoint.of(plan)
    random = np.random.default_rng(1)
    numbers = [write_numbers(random.uniform(-9, 9, form.count)) for _ in devices]
    begun = time.process_time()
    states = [steps.make_keys(who, 1) for who in devices]
    keys = [state.keys for state in states]
    states = [steps.make_shares(w, s, keys) for w, s in zip(devices, states, strict=True)]
    shares = {who.device: state.shares for who, state in zip(devices, states, strict=True)}
    inputs = []
    for place, who in enumerate(devices):
        boxes = {name: raw for name, raw in shares.items() if name != who.device}
        states[place] = steps.take_boxes(who, states[place], boxes)
        inputs.append(steps.masked_input(who, states[place], numbers[place]))
    names = [who.device for who in devices]
    members = Members.listed([verified_keys(one) for one in keys])
    for left in (GROUP, plan.privacy.threshold):
        kept = names[:left]
        made = [steps.make_answer(devices[n], states[n], kept) for n in range(left)]
        if left == GROUP:
            spent = (time.process_time() - begun) / GROUP
        read = [members.read(s.answer, name) for s, name in zip(made, kept, strict=True)]
        answers = [a for a in read if isinstance(a, Answer)][: plan.privacy.threshold]
        at = time.process_time()
        unmask(members, form, [split_message(raw)[1] for raw in inputs[:left]], answers)
        cost = time.process_time() - at
        what = f"server, group of {GROUP}, {features} features, {GROUP - left} gone: CPU s"
        bench.figure(what, cost, f"<= {SERVER_S:g}", cost <= SERVER_S)
    what = f"device, group of {GROUP}, {features} features"
    bench.figure(f"{what}: CPU s", spent, f"<= {DEVICE_S:g}", spent <= DEVICE_S)
    up = [join_message(keys[0]), join_message(states[0].shares), inputs[0]]
    up.append(join_message(made[0].answer))
    bench.figure(f"{what}: bytes up", sum(map(len, up)))
    bench.figure(f"{what}: bytes up beside the numbers", sum(map(len, up)) - form.size)
    down = [
        Step(Wants.SHARES, members=tuple(keys)),
        Step(Wants.INPUT, boxes={n: raw for n, raw in shares.items() if n != names[0]}),
        Step(Wants.ANSWER, survivors=tuple(names)),
    ]
    bench.figure(f"{what}: bytes down", sum(len(dumps(step.plain())) for step in down))


def run(bench: Bench) -> None:
    for features in (64, 1280):
        measure(bench, features)


if __name__ == "__main__":
    main("masks", run)
