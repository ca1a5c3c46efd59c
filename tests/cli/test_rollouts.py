"""`pilotwave policies` and `pilotwave rollouts` as a person runs them."""

from __future__ import annotations

from tests.cli.conftest import DIGITS
from tests.cli.operator import Operator

POLICY = """\
name: by-hand
waves:
  - percent: 50%
    manual: true
    soak: 1h
  - percent: 100%
approval: true
"""


def test_a_policys_faults_are_told_line_by_line(pw: Operator) -> None:
    file = pw.home / "policy.yaml"
    file.write_text(POLICY.replace("1h", "soon").replace("manual", "manuel"))
    done = pw.run("policies", "check", file)
    assert done.returncode == 1
    assert "line 4, waves[0].manuel: unknown key; did you mean `manual`?" in done.stderr
    assert "line 5, waves[0].soak" in done.stderr


def test_a_policy_is_saved_listed_and_shown(pw: Operator) -> None:
    file = pw.home / "policy.yaml"
    file.write_text(POLICY)
    assert "50 % · 100 %" in pw("policies", "save", "by-hand", file)
    assert pw.json("policies", "save", "by-hand", file)["version"] == 1
    assert {"careful", "standard", "everyone-now", "night-only", "by-hand"} <= {
        p["name"] for p in pw.json("policies", "list")
    }
    assert '"soak_s": 3600' in pw("policies", "show", "by-hand")


def test_a_rollout_is_previewed_created_steered_and_explained(
    pw: Operator, model: str, name: str
) -> None:
    pw("publish", model, "1.0.0", "--variant", f"onnx-fp32={DIGITS / '1.0.0'}", "--key",
       pw.keys / "publisher.pem")  # fmt: skip
    pw("groups", "create", name, "--selector", f"site={name}")
    told = ("rollouts", "create", model, "1.0.0", "--group", name)
    refused = pw.run(*told)
    assert refused.returncode == 1
    assert "has no enrolled device" in refused.stderr
    seen = pw(*told, "--dry-run", "--policy", "careful")
    assert "for exactly these devices, create it with --salt" in seen
    file = pw.home / "policy.yaml"
    file.write_text(POLICY)
    made = pw.json(*told, "--policy-file", file, "--allow-empty", "--description", "a try")
    rollout = made["id"]
    assert (made["state"], made["policy_version"]) == ("awaiting_approval", 0)
    own = pw.run("rollouts", "approve", rollout)
    assert own.returncode == 1
    assert "somebody else has to approve it" in own.stderr
    assert rollout in pw("rollouts", "list", "--group", name)
    assert "awaiting approval" in pw("rollouts", "show", rollout)
    assert "by token/admin: a mistake" in pw(
        "rollouts", "abort", "--yes", rollout, "--reason", "a mistake"
    )
    assert "a mistake" in pw("rollouts", "decisions", rollout)
    assert "empty" in pw("rollouts", "devices", rollout)
    assert pw.run("rollouts", "show", "17").returncode == 2


def test_assign_says_that_the_group_is_told_not_that_it_runs(
    pw: Operator, model: str, name: str
) -> None:
    pw("publish", model, "1.0.0", "--variant", f"onnx-fp32={DIGITS / '1.0.0'}", "--key",
       pw.keys / "publisher.pem")  # fmt: skip
    pw("groups", "create", name, "--selector", f"site={name}")
    said = pw.run("assign", "--yes", model, "1.0.0", "--group", name)
    assert said.returncode == 0, said.stderr
    assert (
        f"assigned {model} 1.0.0 to {name}; its devices take it at their next poll" in said.stdout
    )
    assert f"{name} has no device yet; those that join it take it too" in said.stdout
    assert "failed before" not in said.stderr
    assert "refuse" not in said.stderr
