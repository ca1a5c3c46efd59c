"""The bill of materials is valid CycloneDX, and names what is installed."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cyclonedx.schema
import jsonschema_rs
import pytest

REPO = Path(__file__).resolve().parents[2]
SCHEMAS = Path(cyclonedx.schema.__file__).parent / "_res"
WHEEL = {
    "part/__init__.py": b"",
    "part-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: part\nVersion: 1.0\n",
}


def sbom(folder: Path) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "tools.sbom", str(folder), "--name", "trial"]
    return subprocess.run(words, capture_output=True, text=True, cwd=REPO)


def site(folder: Path) -> Path:
    """A site-packages with one package, as pip leaves it."""
    record = ""
    for name, data in WHEEL.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        record += f"{name},sha256={digest},{len(data)}\n"
    record += "part-1.0.dist-info/RECORD,,\n"
    (folder / "part-1.0.dist-info" / "RECORD").write_text(record)
    return folder


def is_valid(bill: dict[str, Any]) -> bool:
    names = ("bom-1.6", "spdx", "jsf-0.82")
    files = [SCHEMAS / f"{name}.SNAPSHOT.schema.json" for name in names]
    read = {path.name: json.loads(path.read_text()) for path in files}
    schema = read.pop("bom-1.6.SNAPSHOT.schema.json")
    registry = jsonschema_rs.Registry(
        [(f"http://cyclonedx.org/schema/{name}", part) for name, part in read.items()]
    )
    return bool(jsonschema_rs.validator_for(schema, registry=registry).is_valid(bill))


def test_the_bill_of_this_environment_is_valid_and_whole() -> None:
    done = sbom(Path(sys.prefix))
    assert done.returncode == 0, done.stderr
    bill = json.loads(done.stdout)
    assert is_valid(bill)
    assert not is_valid({**bill, "specVersion": 7})
    parts = {part["name"]: part for part in bill["components"]}
    assert parts["tuf"]["version"] == version("tuf")
    assert parts["tuf"]["purl"] == f"pkg:pypi/tuf@{version('tuf')}"
    assert all(len(part["hashes"][0]["content"]) == 64 for part in parts.values())
    depends = {d["ref"]: d.get("dependsOn", []) for d in bill["dependencies"]}
    wanted = parts["securesystemslib"]["bom-ref"]
    assert wanted in depends[parts["tuf"]["bom-ref"]]


def test_a_package_that_was_changed_is_told(tmp_path: Path) -> None:
    folder = site(tmp_path)
    assert sbom(folder).returncode == 0
    (folder / "part" / "__init__.py").write_text("import os\n")
    done = sbom(folder)
    assert (done.returncode, done.stdout) == (1, "")
    assert "part/__init__.py was changed after it was installed" in done.stderr


@pytest.mark.parametrize("name", ["empty", "gone"])
def test_a_folder_without_packages_is_told(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    done = sbom(tmp_path / name)
    assert done.returncode == 2
    assert "no installed package" in done.stderr
