"""The chart: rendered and linted by Helm's own library, its objects held to Kubernetes' schemas.

Both are large and live in an environment of their own (`make test-all` makes it); no cluster runs.
"""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from pilotwave_server.settings import Settings

REPO = Path(__file__).parents[2]
CHART = REPO / "deploy" / "helm" / "pilotwave"
TOOLS = REPO / ".venv-helm" / "bin"
slow = [pytest.mark.slow, pytest.mark.timeout(300)]
LEAST: dict[str, Any] = {
    "fleet": "berlin",
    "publicUrl": "https://fleet.example.org",
    "blobs": {"url": "s3://models/berlin", "claim": ""},
}
ALL: dict[str, Any] = {
    **LEAST,
    "blobs": {"url": "", "claim": "models"},
    "autoscaling": {"enabled": True},
    "trustedProxies": "10.0.0.0/8",
    "settings": {"PILOTWAVE_WORKERS": "2"},
    "extraEnv": [
        {
            "name": "PILOTWAVE_MQTT_PASSWORD",
            "valueFrom": {"secretKeyRef": {"name": "mqtt", "key": "password"}},
        }
    ],
    "extraEnvFrom": [{"secretRef": {"name": "bucket"}}],
    "imagePullSecrets": [{"name": "registry"}],
    "ingress": {"enabled": True, "className": "nginx", "host": "x.org", "tlsSecret": "tls"},
    "networkPolicy": {"from": [{"namespaceSelector": {"matchLabels": {"a": "b"}}}]},
    "nodeSelector": {"disk": "ssd"},
    "tolerations": [{"key": "a", "operator": "Exists"}],
    "podAnnotations": {"a": "b"},
}


def helm(command: str, values: dict[str, Any]) -> Any:
    words = [str(TOOLS / "python"), str(REPO / "tests/deploy/render_chart.py"), command, str(CHART)]
    done = subprocess.run(
        words, input=json.dumps(values), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def objects(values: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """By kind; there is one of each, but for what is switched off."""
    rendered = helm("render", values)["rendered"]
    found = [
        one
        for name, text in rendered.items()
        if name.endswith(".yaml")
        for one in yaml.safe_load_all(text)
        if one
    ]
    return {one["kind"]: one for one in found}


def pods(found: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    return [found[kind]["spec"]["template"]["spec"] for kind in ("Deployment", "Job")]


def test_the_chart_names_settings_that_there_are() -> None:
    text = "".join(p.read_text() for p in CHART.rglob("*") if p.is_file())
    named = set(re.findall(r"PILOTWAVE_[A-Z_]+[A-Z]", text))
    assert len(named) > 5
    assert named <= {f"PILOTWAVE_{name.upper()}" for name in Settings.model_fields}


@pytest.mark.parametrize("values", [LEAST, ALL], ids=["least", "all"])
class TestRendered:
    pytestmark = slow

    def test_helm_finds_no_fault(self, values: dict[str, Any]) -> None:
        assert helm("lint", values) == []

    def test_kubernetes_takes_each_object(self, values: dict[str, Any], tmp_path: Path) -> None:
        found = objects(values)
        assert {"Deployment", "Job", "Service", "ServiceAccount", "PodDisruptionBudget"} <= set(
            found
        )
        assert ("HorizontalPodAutoscaler" in found) == ("Ingress" in found) == (values is ALL)
        for kind, one in found.items():
            file = tmp_path / f"{kind}.yaml"
            file.write_text(yaml.safe_dump(one))
            for version in ("1.27", "1.35"):
                words = [str(TOOLS / "kubernetes-validate"), "-k", version, "--strict", str(file)]
                done = subprocess.run(words, capture_output=True, text=True, check=False)
                assert done.returncode == 0, f"{kind}: {done.stdout}{done.stderr}"

    def test_no_pod_has_a_right(self, values: dict[str, Any]) -> None:
        for pod in pods(objects(values)):
            assert pod["securityContext"]["runAsNonRoot"]
            assert pod["automountServiceAccountToken"] is False
            (container,) = pod["containers"]
            rights = container["securityContext"]
            assert rights["readOnlyRootFilesystem"]
            assert rights["allowPrivilegeEscalation"] is False
            assert rights["capabilities"] == {"drop": ["ALL"]}
            mounts = {mount["name"] for mount in container["volumeMounts"]}
            assert mounts == {volume["name"] for volume in pod["volumes"]}

    def test_a_server_is_asked_and_ends_in_time(self, values: dict[str, Any]) -> None:
        found = objects(values)
        server, _ = pods(found)
        (container,) = server["containers"]
        paths = {name: container[f"{name}Probe"]["httpGet"]["path"] for name in
                 ("startup", "liveness", "readiness")}  # fmt: skip
        assert paths == {"startup": "/livez", "liveness": "/livez", "readiness": "/readyz"}
        told = {e["name"]: e.get("value") for e in container["env"]}
        assert server["terminationGracePeriodSeconds"] >= int(told["PILOTWAVE_DRAIN_S"]) + 10
        assert ("replicas" in found["Deployment"]["spec"]) == (values is LEAST)

    def test_each_selector_meets_the_servers_alone(self, values: dict[str, Any]) -> None:
        found = objects(values)
        labels = found["Deployment"]["spec"]["template"]["metadata"]["labels"]
        other = found["Job"]["spec"]["template"]["metadata"]["labels"]
        for selector in (
            found["Deployment"]["spec"]["selector"]["matchLabels"],
            found["Service"]["spec"]["selector"],
            found["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        ):
            assert selector.items() <= labels.items()
            assert not selector.items() <= other.items()
        policy = found["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"]
        assert policy.items() <= labels.items()

    def test_the_database_is_migrated_first(self, values: dict[str, Any]) -> None:
        found = objects(values)
        hooks = found["Job"]["metadata"]["annotations"]
        assert hooks["helm.sh/hook"] == "pre-install,pre-upgrade"
        account = found["ServiceAccount"]["metadata"]["annotations"]
        assert int(account["helm.sh/hook-weight"]) < int(hooks["helm.sh/hook-weight"])
        assert pods(found)[1]["containers"][0]["command"][:2] == ["pilotwave-server", "init"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "fleet"),
        ({**LEAST, "publicUrl": "http://x.org"}, "publicUrl"),
        # two pods with a folder each would not share files
        ({**LEAST, "blobs": {"url": "", "claim": ""}}, "blobs"),
        ({**LEAST, "settings": {"DATABASE": "x"}}, "PILOTWAVE_"),
    ],
)
def test_values_that_make_no_fleet_are_refused(values: dict[str, Any], said: str) -> None:
    assert said in helm("render", values)["error"]
