"""Client certificates of devices: by the server itself and by nginx before it, to a real agent."""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from demo.stage import CommandFailed
from tests.certificates import issued, self_signed
from tests.e2e.stage import ForkedStage
from tests.peers.gateway import FRONT, NGINX, Gateway

SERVED = ("--tls-cert", "cert.pem", "--tls-key", "key.pem")
ASKED = "client certificate"


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[ForkedStage]:
    """Beside it lie the server's pair, the authority of devices, and two devices' certificates: one
    by that authority, one by another."""
    authority, other = self_signed("fleet"), self_signed("fleet")
    pairs = {
        "cert": self_signed("localhost"),
        "ca": authority,
        "own": issued("cam", by=authority),
        "wrong": issued("cam", by=other),
    }
    for name, (cert, key) in pairs.items():
        (tmp_path / f"{name}.pem").write_bytes(cert)
        (tmp_path / ("key.pem" if name == "cert" else f"{name}.key")).write_bytes(key)
    more = {"SSL_CERT_FILE": str(tmp_path / "cert.pem"), "PILOTWAVE_DELTA_PROCESSES": "0"}
    made = ForkedStage(tmp_path, settings=more)
    made.run(
        *("pilotwave-server", "init", "--data", "data", "--fleet", "x"),
        *("--token-file", "admin.token"),
    )
    yield made
    made.close()


def serve(stage: ForkedStage, **settings: str) -> None:
    """Start the server with HTTPS of its own, asking for certificates by `ca.pem`."""
    stage.settings.update({"PILOTWAVE_TLS_CLIENT_CA": "ca.pem", **settings})
    words = ("run", "--data", "data", "--port", "0", *SERVED)
    process = stage.start("server", "pilotwave-server", *words)
    log, deadline = stage.root / "server.log", time.monotonic() + 100
    while "listening on https://127.0.0.1:" not in log.read_text():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    port = log.read_text().split("listening on https://127.0.0.1:")[1].split()[0]
    stage.url = f"https://localhost:{port}"


def enrols_with_the_right_certificate_alone(stage: ForkedStage) -> None:
    stage.pilotwave("keys", "init", "--dir", "keys", "--plain")
    code = stage.ask("codes", "create")["items"][0]["code"]
    who = ("--server", stage.url, "--name", "cam", "--code", code, "--root", "keys/root.json")
    enrol = ("enrol", *who, "--ca-file", "cert.pem")
    with pytest.raises(CommandFailed, match=ASKED):
        stage.run("pilotwave-agent", *enrol, "--data", "none")
    wrong = ("--client-cert", "wrong.pem", "--client-key", "wrong.key")
    with pytest.raises(CommandFailed, match=ASKED):
        stage.run("pilotwave-agent", *enrol, "--data", "wrong", *wrong)
    own = ("--client-cert", "own.pem", "--client-key", "own.key")
    stage.run("pilotwave-agent", *enrol, "--data", "cam", *own)
    stage.run("pilotwave-agent", "once", "--data", "cam")
    assert stage.ask("devices", "show", "cam")["state"] == "enrolled"


def test_the_server_answers_devices_with_a_certificate_of_its_authority(
    stage: ForkedStage,
) -> None:
    serve(stage)
    enrols_with_the_right_certificate_alone(stage)
    context = ssl.create_default_context(cafile=stage.root / "cert.pem")
    with httpx.Client(base_url=stage.url, verify=context) as person:
        assert person.get("/readyz").status_code == 200  # people need none
        assert person.get("/api/v1/models").status_code == 401
        for path in ("/device/v1/directive", "/device/v1/push", "/%64evice/v1/directive"):
            answer = person.get(path)
            assert answer.status_code == 403, path
            assert answer.json()["code"] == "client_certificate_required"
    context.load_cert_chain(stage.root / "own.pem", stage.root / "own.key")
    with httpx.Client(base_url=stage.url, verify=context) as device:
        # the certificate says nothing about who it is: that is the signed identity's to say
        assert device.get("/device/v1/directive").json()["code"] == "bad_token"


def test_under_a_path_it_asks_all_the_same(stage: ForkedStage) -> None:
    serve(stage, PILOTWAVE_PUBLIC_URL="https://localhost/fleet")
    context = ssl.create_default_context(cafile=stage.root / "cert.pem")
    with httpx.Client(base_url=stage.url, verify=context) as person:
        for path in ("/fleet/device/v1/directive", "/device/v1/directive"):
            assert person.get(path).status_code == 403, path


@pytest.mark.skipif(not NGINX, reason="nginx is not installed")
def test_nginx_answers_devices_with_a_certificate_of_its_authority(stage: ForkedStage) -> None:
    stage.settings["PILOTWAVE_TRUSTED_PROXIES"] = "127.0.0.1"
    stage.start_server()
    root, template = stage.root, stage.root / "front.conf.template"
    text = FRONT.read_text().replace("${PILOTWAVE_LISTEN};", "${PILOTWAVE_LISTEN} ssl;")
    lines = (
        f"ssl_certificate {root}/cert.pem;\n    ssl_certificate_key {root}/key.pem;\n"
        f"    ssl_client_certificate {root}/ca.pem;\n    ssl_verify_client optional;\n"
    )
    asked = text.replace("    # devices: ", "    ").replace("        # devices: ", "        ")
    template.write_text(asked.replace("server_tokens off;", f"{lines}    server_tokens off;"))
    gateway = Gateway(stage.url, root / "nginx", template=template)
    try:
        stage.url = f"https://localhost:{gateway.port}"
        enrols_with_the_right_certificate_alone(stage)
        context = ssl.create_default_context(cafile=root / "cert.pem")
        assert httpx.get(f"{stage.url}/readyz", verify=context).status_code == 200
        answer = httpx.get(f"{stage.url}/device/v1/push", verify=context)
        assert (answer.status_code, answer.json()["code"]) == (403, "client_certificate_required")
    finally:
        gateway.stop()


@pytest.mark.parametrize(
    ("settings", "words", "said"),
    [
        ({"PILOTWAVE_TLS_CLIENT_CA": "ca.pem"}, (), "needs tls_cert and tls_key"),
        ({"PILOTWAVE_TLS_CLIENT_CA": "gone.pem"}, SERVED, "gone.pem: expected the authority"),
        ({"PILOTWAVE_TLS_CLIENT_CA": "key.pem"}, SERVED, "it holds no certificate"),
    ],
)
def test_what_cannot_be_an_authority_is_refused_at_the_start(
    stage: ForkedStage, settings: dict[str, str], words: tuple[str, ...], said: str
) -> None:
    stage.settings.update(settings)
    with pytest.raises(CommandFailed, match=said):
        stage.run("pilotwave-server", "run", "--data", "data", "--port", "0", *words)
