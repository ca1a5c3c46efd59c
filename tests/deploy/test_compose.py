"""deploy/compose: each file is held to the program that it is for, as far as it is installed here.
No Docker engine runs."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from pilotwave_server.settings import Settings
from tests import mosquitto
from tests.peers.gateway import FRONT, NGINX

REPO = Path(__file__).parents[2]
FOLDER = REPO / "deploy" / "compose"
COMPOSE: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = [name for name, s in SERVICES.items() if s["image"] == "pilotwave-server"]


def run(*words: object, folder: Path | None = None) -> str:
    done = subprocess.run(
        [str(w) for w in words], capture_output=True, text=True, check=False, cwd=folder
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_names_only_what_is_there(name: str) -> None:
    service = SERVICES[name]
    assert set(service.get("depends_on", {})) <= set(SERVICES)
    assert set(service["networks"]) <= set(COMPOSE["networks"])
    for volume in service.get("volumes", []):
        place = volume.split(":")[0]
        if not place.startswith("."):
            assert place in COMPOSE["volumes"]
        elif "/secrets/" not in place:
            assert (FOLDER / place).exists(), place


def test_servers_know_their_settings_and_hold_no_right() -> None:
    known = {f"PILOTWAVE_{name.upper()}" for name in Settings.model_fields}
    assert OURS == ["init", "server-1", "server-2"]
    for name in OURS:
        service = SERVICES[name]
        assert set(service["environment"]) <= known
        assert service["cap_drop"] == ["ALL"]
        assert service["read_only"]
        assert not service["user"].startswith("0")
    assert "token:/token" not in SERVICES["server-1"]["volumes"]


def test_only_what_shall_be_reached_is_reached() -> None:
    ports = {name: s["ports"] for name, s in SERVICES.items() if "ports" in s}
    assert ports == {
        "nginx": ["443:443"],
        "mosquitto": ["8883:8883"],
        "grafana": ["127.0.0.1:3000:3000"],
    }
    trusted = SERVICES["server-1"]["environment"]["PILOTWAVE_TRUSTED_PROXIES"]
    assert COMPOSE["networks"]["front"]["ipam"]["config"] == [{"subnet": trusted}]
    for name in ("postgres", "prometheus"):
        assert SERVICES[name]["networks"] == ["inside"]


def test_every_image_from_elsewhere_has_a_version() -> None:
    for service in SERVICES.values():
        image = re.sub(r"\$\{[A-Z_]+:-(.*)\}", r"\1", service["image"])
        assert image == "pilotwave-server" or re.search(r":v?\d", image), image


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """What setup.sh makes, in a copy of the tree."""
    if not mosquitto.program("mosquitto_passwd"):
        pytest.skip(mosquitto.ABSENT)
    for part in ("deploy/compose", "examples/mosquitto", "deploy/prometheus", "docker"):
        ignored = shutil.ignore_patterns("secrets", ".env")
        shutil.copytree(REPO / part, tmp_path / part, ignore=ignored)
    run("sh", tmp_path / "deploy/compose/setup.sh", "localhost", "berlin")
    return tmp_path / "deploy" / "compose"


def test_set_up_twice_keeps_what_was_made(made: Path) -> None:
    files = [p for p in [made / ".env", *(made / "secrets").rglob("*")] if p.is_file()]
    before = {path: path.read_bytes() for path in files}
    run("sh", made / "setup.sh", "localhost", "berlin")
    assert {path: path.read_bytes() for path in files} == before
    for private in (".env", "secrets"):
        assert (made / private).stat().st_mode & 0o77 == 0
    given = dict(line.split("=", 1) for line in (made / ".env").read_text().splitlines())
    wanted = set(re.findall(r"\$\{([A-Z_]+):\?", (made / "compose.yml").read_text()))
    assert set(given) == wanted
    key = given["KEY_ENCRYPTION_KEY"]
    assert Settings(key_encryption_key=key)
    assert "acme" not in (made / "secrets/mosquitto/acl").read_text()


@pytest.mark.skipif(not NGINX, reason="nginx is not installed")
def test_nginx_takes_its_configuration(made: Path, tmp_path: Path) -> None:
    environment = SERVICES["nginx"]["environment"]
    text = FRONT.read_text()
    for name in ("PILOTWAVE_LISTEN", "PILOTWAVE_ORIGIN"):
        # names of other containers mean nothing here
        value = environment[name].replace("server-1", "127.0.0.1").replace("server-2", "127.0.0.2")
        text = text.replace("${" + name + "}", value)
    assert "${" not in text
    tls = (made / "nginx/certificate.conf").read_text()
    tls = tls.replace("/etc/nginx/tls", str(made / "secrets/tls"))
    temporary = "".join(
        f"{kind}_temp_path {tmp_path}/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    file = tmp_path / "nginx.conf"
    file.write_text(
        f"pid {tmp_path}/pid;\nevents {{}}\nhttp {{\naccess_log off;\n{temporary}{tls}{text}}}\n"
    )
    said = run(NGINX, "-t", "-p", tmp_path, "-e", tmp_path / "log", "-c", file)
    assert "successful" in said
    assert "server 127.0.0.1:8600; server 127.0.0.2:8600;" in file.read_text()


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not installed")
def test_prometheus_takes_its_configuration(made: Path, tmp_path: Path) -> None:
    place = tmp_path / "prometheus"
    (place / "token").mkdir(parents=True)
    (place / "token" / "metrics").write_text("pw_x")
    for file in (made / "prometheus/prometheus.yml", made.parent / "prometheus/alerts.yml"):
        shutil.copy(file, place)
    said = run("promtool", "check", "config", place / "prometheus.yml")
    assert "rules found" in said
    (job,) = yaml.safe_load((place / "prometheus.yml").read_text())["scrape_configs"]
    assert job["job_name"] == "pilotwave"  # which the alerts name
    hosts = {target.split(":")[0] for target in job["static_configs"][0]["targets"]}
    assert hosts == set(OURS) - {"init"}


@pytest.mark.skipif(
    not shutil.which("amtool"), reason="amtool is not installed (prometheus-alertmanager)"
)
def test_alertmanager_takes_its_configuration_and_sends_pages_to_the_pager() -> None:
    file = FOLDER / "alertmanager/alertmanager.yml"
    assert "SUCCESS" in run("amtool", "check-config", file)
    for severity, receiver in (("page", "pager"), ("warning", "nobody")):
        found = run("amtool", "config", "routes", "test", f"--config.file={file}",
                    f"severity={severity}")  # fmt: skip
        assert found.split()[0] == receiver


@pytest.mark.skipif(not mosquitto.program(), reason=mosquitto.ABSENT)
def test_mosquitto_takes_its_configuration(made: Path, tmp_path: Path) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as one,
        socket.create_server(("127.0.0.1", 0)) as two,
    ):
        plain, secure = one.getsockname()[1], two.getsockname()[1]
    text = (made / "mosquitto/mosquitto.conf").read_text()
    for old, new in (
        ("listener 1883", f"listener {plain} 127.0.0.1"),
        ("listener 8883", f"listener {secure} 127.0.0.1"),
        ("/mosquitto/secrets", str(made / "secrets/mosquitto")),
        ("/mosquitto/tls", str(made / "secrets/tls")),
    ):
        assert old in text
        text = text.replace(old, new)
    file = tmp_path / "mosquitto.conf"
    file.write_text(text + ("user root\n" if os.geteuid() == 0 else ""))
    broker = subprocess.Popen(
        [mosquitto.program() or "", "-c", str(file)], stderr=subprocess.PIPE, text=True
    )
    try:
        deadline = time.monotonic() + 20
        for port in (plain, secure):
            while True:
                assert broker.poll() is None, broker.stderr and broker.stderr.read()
                try:
                    socket.create_connection(("127.0.0.1", port), timeout=1).close()
                    break
                except OSError:
                    assert time.monotonic() < deadline
                    time.sleep(0.05)
    finally:
        broker.terminate()
        broker.communicate(timeout=20)


def test_grafana_finds_the_dashboard_and_its_source() -> None:
    mounts = dict(v.split(":")[:2] for v in SERVICES["grafana"]["volumes"])
    (provider,) = yaml.safe_load((FOLDER / "grafana/dashboards.yml").read_text())["providers"]
    assert mounts["../grafana/pilotwave.json"].startswith(provider["options"]["path"] + "/")
    (source,) = yaml.safe_load((FOLDER / "grafana/datasource.yml").read_text())["datasources"]
    assert source["type"] == "prometheus"
    assert source["url"] == "http://prometheus:9090"


def test_scripts_are_shell() -> None:
    for script in FOLDER.glob("*.sh"):
        run("sh", "-n", script)
