"""docker-compose.yml, Dockerfile and scripts speak of the same things."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from pilotwave_server.settings import Settings

REPO = Path(__file__).resolve().parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((REPO / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
SCRIPTS = "".join(p.read_text() for p in sorted((REPO / "docker").glob("*.sh")))
DOCKERFILE = (REPO / "Dockerfile").read_text()
PIN = REPO / "docker" / "pin-images.sh"
STAGES = set(re.findall(r"^FROM \S+ AS (\S+)$", DOCKERFILE, re.M))


@pytest.mark.parametrize("name", SERVICES)
def test_service_names_only_what_is_there(name: str) -> None:
    service = SERVICES[name]
    assert set(service.get("depends_on", {})) <= set(SERVICES)
    volumes = {v.split(":")[0] for v in service.get("volumes", [])}
    assert volumes <= set(COMPOSE["volumes"])
    if "build" in service:
        assert service["build"]["target"] in STAGES
    for word in service.get("entrypoint", [])[1:]:
        assert (REPO / "docker" / Path(word).name).exists()


@pytest.mark.parametrize("name", [n for n in SERVICES if n != "postgres"])
def test_each_environment_variable_is_read_by_someone(name: str) -> None:
    known = {f"PILOTWAVE_{field.upper()}" for field in Settings.model_fields}
    known |= set(re.findall(r"PILOTWAVE_[A-Z_]+", SCRIPTS)) | {"PILOTWAVE_URL"}
    assert set(SERVICES[name]["environment"]) <= known


def test_two_devices_have_a_code_each_and_a_folder_each() -> None:
    devices = [s for s in SERVICES.values() if s["image"] == "pilotwave-agent"]
    names = [s["environment"]["PILOTWAVE_DEVICE"] for s in devices]
    assert len(set(names)) == 2
    assert SERVICES["setup"]["command"] == names
    assert len({s["volumes"][0] for s in devices}) == 2


def test_devices_never_see_the_folder_of_keys() -> None:
    for service in SERVICES.values():
        if service["image"] == "pilotwave-agent":
            assert not [v for v in service["volumes"] if v.startswith("operator")]


def test_images_hold_every_file_that_the_build_reads() -> None:
    """.dockerignore lets in what a COPY of the Dockerfile names."""
    allowed = {
        line[1:].split("/")[0]
        for line in (REPO / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.M)
    assert {word for line in copied for word in line.split()} <= allowed


def test_no_server_sees_a_key_and_none_is_root() -> None:
    """The volume with the publishers' keys was mounted into the server, for its first token."""
    for name, service in SERVICES.items():
        volumes = {v.split(":")[0] for v in service.get("volumes", [])}
        assert ("operator" in volumes) == (name in ("setup", "operator")), name
        if service["image"].startswith("pilotwave-"):
            assert service["user"].split(":")[0] not in ("0", "root"), name
            assert service["cap_drop"] == ["ALL"], name
            assert service["read_only"], name
            assert service["security_opt"] == ["no-new-privileges:true"], name
    assert re.search(r"^USER (?!root)", DOCKERFILE, re.M)


def test_every_image_from_elsewhere_can_be_named_by_digest() -> None:
    """Each is a variable that docker/pin-images.sh fills, or a stage of our own."""
    text = (REPO / "docker-compose.yml").read_text()
    pinned = set(re.findall(r"\$\{([A-Z_]+_IMAGE):-[^}]+\}", text))
    for image in re.findall(r"^FROM (\S+)", DOCKERFILE, re.M):
        assert image in STAGES or image.strip("${}") in pinned, image
    for service in SERVICES.values():
        found = re.fullmatch(r"\$\{([A-Z_]+):-[^}]+\}", service["image"])
        assert service["image"].startswith("pilotwave-") or (found and found[1] in pinned)
        if "build" in service:
            assert set(service["build"]["args"]) <= pinned


@pytest.mark.parametrize(
    ("said", "status"), [("sha256:" + "a" * 64, 0), ("", 1), ("sha256:abc", 1), ("3.11-slim", 1)]
)
def test_images_are_pinned_by_what_the_registry_says_or_not_at_all(
    tmp_path: Path, said: str, status: int
) -> None:
    docker = tmp_path / "docker"
    docker.write_text(f"#!/bin/sh\necho '{said}'\n")
    docker.chmod(0o755)
    file = tmp_path / "env"
    file.write_text("PILOTWAVE_FLEET=berlin\nPYTHON_IMAGE=old\n")
    done = subprocess.run(
        ["sh", str(PIN), str(file), str(REPO / "docker-compose.yml")],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == status, done.stderr
    lines = file.read_text().splitlines()
    if status:
        assert lines == ["PILOTWAVE_FLEET=berlin", "PYTHON_IMAGE=old"]
        assert "expected a digest" in done.stderr
    else:
        images = [f"POSTGRES_IMAGE=postgres:16@{said}", f"PYTHON_IMAGE=python:3.11-slim@{said}"]
        assert lines == ["PILOTWAVE_FLEET=berlin", *images]


@pytest.mark.parametrize(
    ("compose", "count"), [("docker-compose.yml", 2), ("deploy/compose/compose.yml", 7)]
)
def test_images_that_are_not_pinned_are_named(tmp_path: Path, compose: str, count: int) -> None:
    file = tmp_path / "env"
    words = ["sh", str(PIN), "--check", str(file), str(REPO / compose)]
    found = subprocess.run(words, capture_output=True, text=True)
    assert found.returncode == 1
    told = found.stderr.splitlines()
    assert len(told) == count
    assert all("is not pinned by digest" in line for line in told)
    names = [re.findall(r"\(([A-Z_]+)\)", line)[0] for line in told]
    pins = [f"{name}=a:1@sha256:{'a' * 64}" for name in names]
    file.write_text("\n".join([*pins[:-1], f"{names[-1]}=a:1"]))
    found = subprocess.run(words, capture_output=True, text=True)
    assert (found.returncode, len(found.stderr.splitlines())) == (1, 1)
    file.write_text("\n".join(pins))
    assert subprocess.run(words, capture_output=True).returncode == 0


def test_images_install_nothing_whose_hash_is_not_known() -> None:
    for line in re.findall(r"pip install .*", DOCKERFILE):
        assert "--require-hashes" in line or "--no-index" in line, line
