"""docker-compose.yml, Dockerfile and scripts speak of the same things."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from pilotwave_server.settings import Settings

REPO = Path(__file__).resolve().parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((REPO / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
SCRIPTS = "".join(p.read_text() for p in sorted((REPO / "docker").glob("*.sh")))
STAGES = set(re.findall(r"^FROM \S+ AS (\S+)$", (REPO / "Dockerfile").read_text(), re.M))


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
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", (REPO / "Dockerfile").read_text(), re.M)
    assert {word for line in copied for word in line.split()} <= allowed
