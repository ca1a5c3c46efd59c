"""What a fleet learns from labelled examples that stay on the devices, and what liars do to it.

Digits by a network of 4,810 weights that was trained on 150 clean images at the factory; in the
field images are shifted, darker and noisy. Only its last layer is learnt. Devices differ in their
classes by Dirichlet(0.3) and (0.1); one with fewer than 20 examples takes no part. The lies are as
large as the server's checks let pass, by the devices that have the most examples:

  labels    each example under a wrong class, the same for all liars
  many      the same, each example again and again until as many count as the plan allows
  invented  sgd: the honest change turned round, as long as the plan allows;
            ridge: embeddings of nothing, as many and as long as the plan allows

  absent    no lie: these devices take no part, which is the most that a defence could reach

It needs `pip install -e '.[server,examples]'`.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timezone

import numpy as np
from _bench import Bench, main
from _learn import (
    CLASSES,
    HIDDEN,
    Array,
    Examples,
    Field,
    drawn,
    invented,
    largest,
    learn_network,
    load_field,
    repeated,
    shared_out,
    wrong_classes,
)

from pilotwave_agent.learning.compute import ridge_update, sgd_update
from pilotwave_protocol.learning import noise
from pilotwave_protocol.learning.gradient import change_of, clipped
from pilotwave_protocol.learning.plan import (
    Aggregate,
    Base,
    Method,
    Noise,
    StartHead,
    Steps,
    TrainingPlan,
)
from pilotwave_protocol.learning.statistics import Statistics, scores, write_numbers
from pilotwave_server.learning.aggregate import OF_CHANGES
from pilotwave_server.learning.check_numbers import check_sums
from pilotwave_server.learning.sum_up import Packed, Validation, leave_one_out, sum_all, total

PENALTY = 1.0
ABSENT = "absent"
ROUNDS = (1, 5, 10, 30, 50)
LIES = ("labels", "many", "invented", ABSENT)
ONE, FOUR = 0.02, 0.05  # what the default may lose to so many liars of 20
DEVICE_S, DEVICE_MB = 2.0, 40.0
RIDGE = TrainingPlan(
    model="digits",
    plan="bench",
    base=Base("1.0.0", "a" * 64, "onnx-fp32"),
    embedding="active",
    features=HIDDEN,
    classes=CLASSES,
    method=Method.RIDGE,
    aggregate=Aggregate.SUM,
    clip="1",
    deadline=datetime(2027, 1, 1, tzinfo=timezone.utc),
    penalty=str(PENALTY),
)


def measure(bench: Bench) -> None:
    try:
        field = load_field()
    except ModuleNotFoundError as error:
        bench.say(f"left out: {error.name} is not installed (pip install -e '.[examples]')")
        return
    longest = float(np.quantile(np.linalg.norm(field.validation.x, axis=1), 0.95))
    ridge = replace(RIDGE, clip=f"{longest:.3g}")
    sgd = with_steps(field, longest)
    bench.figure("factory version, clean images", right(field.head, field.clean))
    bench.figure("factory version, in the field", right(field.head, field.test))
    for devices in (20,) if bench.quick else (20, 1000):
        for alpha in (0.3, 0.1):
            accuracies(bench, field, ridge, sgd, devices=devices, alpha=alpha)
    for alpha in (0.3,) if bench.quick else (0.3, 0.1):
        lies(bench, field, ridge, sgd, alpha=alpha, seeds=1 if bench.quick else 5)
    noisy(bench, field, ridge, sgd)
    on_device(bench, ridge, sgd)
    on_server(bench, field, ridge, sgd, updates=1000 if bench.quick else 10_000)


def with_steps(field: Field, longest: float) -> TrainingPlan:
    """A plan of gradient steps as `learn plan` makes it."""
    steps = Steps(epochs=5, batch=16, rate=f"{40 / longest**2:.2g}")
    own = field.validation
    change = change_of(begin_with(field), own.x, own.y, steps, clip=1e9, seed=0)
    return replace(
        RIDGE,
        method=Method.SGD,
        aggregate=Aggregate.GEOMETRIC_MEDIAN,
        clip=f"{np.linalg.norm(change):.3g}",
        steps=steps,
        head=StartHead("a" * 64, "10"),
    )


def begin_with(field: Field) -> Array:
    """The head of the version that is out, scaled as `learn plan` does it."""
    own = field.validation

    def loss(scale: float) -> float:
        z = scores(field.head * scale, own.x)
        z = z - z.max(axis=1, keepdims=True)
        return float((np.log(np.exp(z).sum(axis=1)) - z[np.arange(len(z)), own.y]).mean())

    return field.head * min(np.geomspace(0.1, 100, 61), key=loss)


def own_of(field: Field) -> Validation:
    return Validation(field.validation.x, field.validation.y)


def right(head: Array, judged: Examples) -> float:
    return float((scores(head, judged.x).argmax(axis=1) == judged.y).mean())


def taking_part(devices: Sequence[Examples]) -> list[Examples]:
    return [mine for mine in devices if len(mine) >= RIDGE.least_examples]


def sums_of(devices: Sequence[Examples], plan: TrainingPlan) -> list[Statistics]:
    """The updates as the server reads them, each of them checked."""
    found = []
    for mine in devices:
        sent = ridge_update([(mine.x, mine.y)], plan).to_bytes()
        came = Statistics.from_bytes(sent, features=HIDDEN, classes=CLASSES)
        check_sums(came, plan, examples=min(len(mine), plan.most_examples))
        found.append(came)
    return found


def accuracies(
    bench: Bench,
    field: Field,
    ridge: TrainingPlan,
    sgd: TrainingPlan,
    *,
    devices: int,
    alpha: float,
) -> None:
    """By rounds and bytes, against all examples in one place and each device alone."""
    make = shared_out if devices <= 20 else drawn
    fleet = taking_part(make(field, alpha, devices, 1))
    sizes = sorted(len(mine) for mine in fleet)
    what = f"{devices} devices, {alpha}"
    bench.say(
        f"{what}: {len(fleet)} take part, with {sizes[0]} to {sizes[-1]} examples of"
        f" {min(len(set(m.y)) for m in fleet)} to {max(len(set(m.y)) for m in fleet)} classes"
    )
    pooled = Examples(np.vstack([m.x for m in fleet]), np.concatenate([m.y for m in fleet]))
    everything = replace(ridge, most_examples=len(pooled))
    in_one_place = ridge_update([(pooled.x, pooled.y)], everything).head(PENALTY)
    bench.figure(f"{what}: in one place", right(in_one_place, field.test))
    alone = [right(s.head(PENALTY), field.test) for s in sums_of(fleet[:200], ridge)]
    bench.figure(f"{what}: alone, the mean", float(np.mean(alone)))
    updates = sums_of(fleet, ridge)
    summed = sum_all(updates, PENALTY).head
    up, down = ridge.update_bytes, sgd.update_bytes
    bench.figure(
        f"{what}: ridge, 1 round, {up} B up, {down} B down",
        right(summed, field.test),
        "that in one place",
        abs(right(summed, field.test) - right(in_one_place, field.test)) <= 0.002,
    )
    kept = leave_one_out(updates, PENALTY, own_of(field))
    bench.figure(
        f"{what}: ridge, leave one out ({len(kept.left_out)} out)", right(kept.head, field.test)
    )
    by_round = learn(field, fleet, sgd, Aggregate.MEAN, rounds=10 if bench.quick else ROUNDS[-1])
    begins = {"scaled": by_round}
    if devices <= 20:
        for name, head in (("as it is", field.head), ("zeros", 0 * field.head)):
            begins[name] = learn(
                field, fleet, sgd, Aggregate.MEAN, rounds=len(by_round), begin=head
            )
    for name, rights in begins.items():
        for rounds in [r for r in ROUNDS if r <= len(rights)]:
            told = f"{what}: FedAvg, {name}, {rounds} rounds, {rounds * down} B up"
            bench.figure(told, rights[rounds - 1])
    if devices <= 20:
        whole = learn_network(field, fleet, rounds=len(by_round))
        for rounds in [r for r in ROUNDS if r <= len(whole)]:
            told = f"{what}: FedAvg, whole network, {rounds} rounds, {rounds * 4 * 4810} B up"
            bench.figure(told, whole[rounds - 1])


def learn(
    field: Field,
    fleet: Sequence[Examples],
    plan: TrainingPlan,
    aggregate: Aggregate,
    *,
    rounds: int,
    turned: Sequence[int] = (),
    begin: Array | None = None,
) -> list[float]:
    """The accuracy after each round of gradient steps; the changes of `turned` come turned round
    and as long as the plan allows."""
    head, found = (begin_with(field) if begin is None else begin).copy(), []
    for number in range(rounds):
        changes = [
            sgd_update(head, [mine[:2]], plan, seed=1000 * number + place)[0].ravel()
            for place, mine in enumerate(fleet)
        ]
        for place in turned:
            longest = changes[place][None] * 1e9
            changes[place] = -clipped(longest, float(plan.clip))[0]
        head += OF_CHANGES[aggregate](np.array(changes)).reshape(head.shape)
        found.append(right(head, field.test))
    return found


# ---- liars


def lies(
    bench: Bench, field: Field, ridge: TrainingPlan, sgd: TrainingPlan, *, alpha: float, seeds: int
) -> None:
    """The mean over some fleets of 20, without liars and with 1 and 4."""
    fleets = [taking_part(shared_out(field, alpha, 20, seed)) for seed in range(1, seeds + 1)]
    bench.say(f"liars of 20 devices, Dirichlet({alpha}), mean of {seeds} fleet(s)")
    rules: dict[str, Callable[[list[Examples], Sequence[int], str], float]] = {
        "ridge, leave one out (default)": lambda f, bad, lie: with_ridge(field, f, bad, lie, ridge),
        "ridge, sum": lambda f, bad, lie: with_ridge(field, f, bad, lie, ridge, guard=False),
    }
    for aggregate in OF_CHANGES:
        name = f"sgd, {aggregate.value}" + (" (default)" if aggregate is sgd.aggregate else "")
        rules[name] = lambda f, bad, lie, a=aggregate: with_sgd(
            field, f, bad, lie, sgd, a, rounds=10 if bench.quick else 30
        )
    for name, rule in rules.items():
        honest = float(np.mean([rule(fleet, (), "") for fleet in fleets]))
        bench.figure(f"{alpha}, {name}: no liar", honest)
        for count, allowed in ((1, ONE), (4, FOUR)):
            for lie in LIES:
                got = float(np.mean([rule(f, largest(f, count), lie) for f in fleets]))
                goal = f"loses <= {allowed}" if "default" in name and lie != ABSENT else ""
                bench.figure(
                    f"{alpha}, {name}: {count} of 20, {lie}", got, goal, got >= honest - allowed
                )


def lied(
    fleet: Sequence[Examples], bad: Sequence[int], lie: str, plan: TrainingPlan
) -> list[Examples]:
    """The fleet's examples with the liars' own in place of theirs."""
    if lie == ABSENT:
        return [mine for place, mine in enumerate(fleet) if place not in bad]
    found, random = list(fleet), np.random.default_rng(9)
    for place in bad:
        mine = wrong_classes(found[place])
        if lie == "many":
            mine = repeated(mine, plan.most_examples)
        elif lie == "invented" and plan.method is Method.RIDGE:
            mine = invented(plan.most_examples, float(plan.clip), random)
        elif lie == "invented":
            continue  # the change is turned round instead
        found[place] = mine
    return found


def with_ridge(
    field: Field,
    fleet: list[Examples],
    bad: Sequence[int],
    lie: str,
    plan: TrainingPlan,
    *,
    guard: bool = True,
) -> float:
    updates = sums_of(lied(fleet, bad, lie, plan), plan)
    if not guard:
        return right(sum_all(updates, PENALTY).head, field.test)
    kept = leave_one_out(updates, PENALTY, own_of(field))
    return right(kept.head, field.test)


def with_sgd(
    field: Field,
    fleet: list[Examples],
    bad: Sequence[int],
    lie: str,
    plan: TrainingPlan,
    aggregate: Aggregate,
    *,
    rounds: int,
) -> float:
    turned = bad if lie == "invented" else ()
    devices = lied(fleet, bad, lie, plan)
    return learn(field, devices, plan, aggregate, rounds=rounds, turned=turned)[-1]


# ---- noise


def noisy(bench: Bench, field: Field, ridge: TrainingPlan, sgd: TrainingPlan) -> None:
    """What is left with noise, by how many devices there are. Of those above 1,000 each of 1,000 is
    there several times; the noise is that of all."""
    fleet = taking_part(drawn(field, 0.3, 200 if bench.quick else 1000, 1))
    sums = total(sums_of(fleet, replace(ridge, most_examples=60)))
    for epsilon in ("8", "1"):
        for devices in (20, 1000, 10_000):
            here = fleet[:devices]
            promise = {"noise": Noise(epsilon, "1e-6"), "least_devices": devices}
            plan = replace(ridge, most_examples=60, **promise)
            mine = (
                total(sums_of(here, replace(ridge, most_examples=60))) if devices < 1000 else sums
            )
            many = devices / len(here)
            size = noise.share(plan) * devices**0.5
            numbers = many * mine.numbers() + size * noise.gaussians(mine.numbers().size)
            came = Statistics.from_bytes(write_numbers(numbers), features=HIDDEN, classes=CLASSES)
            head = came.head(PENALTY + noise.ridge(plan, devices))
            told = f"noise, epsilon {epsilon}, {devices:,} devices"
            bench.figure(f"{told}: ridge", right(head, field.test))
            steps = replace(sgd, rounds=10, clip="1", **promise)
            bench.figure(f"{told}: sgd, 10 rounds", with_noise(field, here, steps))


def with_noise(field: Field, fleet: Sequence[Examples], plan: TrainingPlan) -> float:
    head, size = begin_with(field), noise.share(plan) / plan.least_devices**0.5
    for number in range(plan.rounds):
        changes = [sgd_update(head, [mine[:2]], plan, seed=number)[0] for mine in fleet[:200]]
        head = head + np.mean(changes, axis=0)
        head = head + size * noise.gaussians(head.size).reshape(head.shape)
    return right(head, field.test)


# ---- seconds and megabytes


_DEVICE = """
import re, sys, time
import numpy as np
from pilotwave_agent.learning.compute import ridge_update, sgd_update
from pilotwave_protocol.learning.plan import Method, parse_plan
from pilotwave_protocol.learning.statistics import write_numbers
plan, random = parse_plan(sys.stdin.buffer.read()), np.random.default_rng(0)
batches = [(random.normal(size=(50, plan.features)).astype(np.float32),
            random.integers(0, plan.classes, 50)) for _ in range(20)]
def peak():  # rusage would tell of the process that started this one too
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024
before, begun = peak(), time.process_time()
if plan.method is Method.RIDGE:
    sent = ridge_update(batches, plan).to_bytes()
else:
    head = np.zeros((plan.features + 1, plan.classes))
    sent = write_numbers(sgd_update(head, batches, plan)[0])
print(time.process_time() - begun, peak() - before, len(sent))
"""


def on_device(bench: Bench, ridge: TrainingPlan, sgd: TrainingPlan) -> None:
    """In a process of its own: CPU seconds and peak memory above what it had with its imports and
    its examples. Running the model is not part of it."""
    for features in (HIDDEN, 1280):
        for plan in (ridge, sgd):
            asked = replace(plan, features=features, most_examples=1000)
            done = subprocess.run(
                [sys.executable, "-c", _DEVICE],
                input=asked.to_bytes(),
                capture_output=True,
                check=True,
            )
            seconds, megabytes, size = map(float, done.stdout.split())
            what = f"device, {plan.method.value}, 1,000 examples of {features}"
            bench.figure(f"{what}: CPU s", seconds, f"<= {DEVICE_S:g}", seconds <= DEVICE_S)
            bench.figure(f"{what}: MB", megabytes, f"<= {DEVICE_MB:g}", megabytes <= DEVICE_MB)
            bench.figure(f"{what}: bytes up", int(size))


def on_server(
    bench: Bench, field: Field, ridge: TrainingPlan, sgd: TrainingPlan, *, updates: int
) -> None:
    fleet = taking_part(drawn(field, 0.3, min(updates, 1000), 3))
    raw = [ridge_update([(m.x, m.y)], ridge).to_bytes() for m in fleet]
    every = [raw[i % len(raw)] for i in range(updates)]
    came = Packed(every, features=HIDDEN, classes=CLASSES)

    def check() -> None:
        for place in range(updates):
            check_sums(came[place], ridge, examples=int(came[place].examples))

    def without() -> None:
        leave_one_out(came, PENALTY, own_of(field))

    timed(bench, f"server, {updates:,} updates, check", check)
    timed(bench, f"server, {updates:,} updates, sum", lambda: sum_all(came, PENALTY))
    timed(bench, f"server, {updates:,} updates, leave one out", without)
    some = np.array([sgd_update(field.head, [m[:2]], sgd, seed=0)[0].ravel() for m in fleet[:500]])
    changes = np.resize(some, (updates, some.shape[1]))
    for aggregate, rule in OF_CHANGES.items():
        timed(
            bench,
            f"server, {updates:,} updates, {aggregate.value}",
            lambda rule=rule: rule(changes),
        )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    bench.figure(f"server, {updates:,} updates: MB in all", peak)


def timed(bench: Bench, what: str, do: Callable[[], object]) -> None:
    begun, cpu = time.perf_counter(), time.process_time()
    do()
    bench.figure(f"{what}: s", time.perf_counter() - begun)
    bench.figure(f"{what}: CPU s", time.process_time() - cpu)


if __name__ == "__main__":
    main("learn", measure)
