"""An experiment with a plan is begun and steered once, though the host that answers dies of it."""

from __future__ import annotations

import numpy as np

from tests.cli.operator import Operator
from tests.cli.test_behind_a_gateway import balancer, before_or_after
from tests.protocol.learning.models import any_classifier


@before_or_after
def test_an_experiment_is_begun_and_steered_though_a_host_dies_of_it(
    pw: Operator, model: str, name: str, after: bool
) -> None:
    file, own = pw.home / "model.onnx", pw.home / "own.npz"
    file.write_bytes(any_classifier())
    random = np.random.default_rng(1)
    x, labels = random.normal(size=(60, 4)).astype(np.float32), random.integers(0, 3, 60)
    np.savez(own, x=x, labels=labels)
    pw("publish", model, "1.0.0", "--no-try", "--variant", f"v={file}")
    pw("groups", "create", name, "--selector", f"site={name}")
    base = ("--base", "1.0.0", "--variant", "v", "--file", file, "--embedding", "active")
    pw("learn", "plan", model, "autumn", *base, "--evaluate", own, "--least-devices", "3")
    with balancer(pw.url, stuck="/learning/experiments", after=after) as between:
        begun = pw.but(url=between.url)("learn", "start", model, "autumn", "--group", name)
    (there,) = pw.json("learn", "status", model)
    assert begun.startswith(f"experiment {there['id']} runs")
    for word in ("pause", "resume"):
        with balancer(pw.url, stuck=f"/{word}", after=after) as between:
            pw.but(url=between.url)("learn", word, model, "autumn")
        assert len(between.keys) == 1
    with balancer(pw.url, stuck="/end", after=after) as between:
        said = pw.but(url=between.url).run("learn", "end", model, "autumn", "--yes")
    assert len(between.keys) == 1
    assert f"experiment {there['id']}" in said.stdout + said.stderr
    assert pw.json("learn", "status", model)[0]["round"] != there["round"]
