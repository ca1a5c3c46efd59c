"""What is installed lies above what is known to be vulnerable, and is pinned by hash."""

from __future__ import annotations

import re
from itertools import chain
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from pilotwave_agent.settings.config import tomllib
from tools.lock import LOCKS

REPO = Path(__file__).parent.parent.parent
PROJECT = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
# The first version without it, by package.
FIXED = [
    ("cryptography", "46.0.5", "CVE-2026-26007: public keys on small subgroups"),
    ("pynacl", "1.6.2", "CVE-2025-69277: points off the main subgroup"),
    ("urllib3", "2.6.3", "CVE-2025-66418, CVE-2025-66471, CVE-2026-21441: decompression bombs"),
    ("authlib", "1.6.6", "CVE-2025-59420, CVE-2025-61920, CVE-2025-68158: headers, size, state"),
    ("joserfc", "1.4.2", "CVE-2025-65015: tokens of any size in errors"),
    ("h11", "0.16", "CVE-2025-43859: chunked bodies read two ways"),
    ("starlette", "0.49.1", "CVE-2024-47874, CVE-2025-54121, CVE-2025-62727: forms and ranges"),
    ("fastapi", "0.120.1", "the first that takes that starlette"),
    ("jinja2", "3.1.6", "CVE-2024-56326, CVE-2025-27516: out of the sandbox"),
    ("python-multipart", "0.0.22", "CVE-2024-53981, CVE-2026-24486: slow parsing, paths"),
    ("onnx", "1.19.1", "CVE-2024-5187, CVE-2025-51480: paths of external data"),
    ("torch", "2.6", "CVE-2025-32434: torch.load(weights_only=True) runs code"),
    ("pillow", "12.1.1", "CVE-2025-48379, CVE-2026-25990: writes beyond a buffer"),
]
# What others ask for: the pins alone can say.
PINNED = [
    ("idna", "3.7", "CVE-2024-3651: quadratic time"),
    ("requests", "2.32.4", "CVE-2024-47081: .netrc to another host"),
    ("certifi", "2024.7.4", "CVE-2024-39689: a root that was withdrawn"),
    ("werkzeug", "3.1.4", "CVE-2025-66221: names of Windows devices"),
    ("protobuf", "6.33.5", "CVE-2025-4565, CVE-2026-0994: recursion"),
]


def asked() -> dict[str, list[Requirement]]:
    """Every requirement of the project, by package."""
    found: dict[str, list[Requirement]] = {}
    for text in chain(PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()):
        one = Requirement(text)
        found.setdefault(canonicalize_name(one.name), []).append(one)
    return found


def pins(path: Path) -> dict[str, set[Version]]:
    """The versions that a file of pins names, by package."""
    found: dict[str, set[Version]] = {}
    for name, version in re.findall(
        r"^([\w.-]+)(?:\[[\w,]+\])?==([^\s;\\]+)", path.read_text(), re.M
    ):
        found.setdefault(canonicalize_name(name), set()).add(Version(version))
    return found


@pytest.mark.parametrize(("name", "fixed", "why"), FIXED, ids=[row[0] for row in FIXED])
def test_no_lower_bound_lets_a_vulnerable_version_in(name: str, fixed: str, why: str) -> None:
    for one in asked()[name]:
        bounds = [Version(s.version) for s in one.specifier if s.operator == ">="]
        assert bounds, f"{one}: {why}"
        assert max(bounds) >= Version(fixed), f"{one}: {why}"


@pytest.mark.parametrize("file", ["constraints.txt", *(f"requirements/{n}.lock" for n in LOCKS)])
def test_no_pin_is_vulnerable(file: str) -> None:
    found = pins(REPO / file)
    for name, fixed, why in [*FIXED, *PINNED]:
        for version in found.get(name, ()):
            assert version >= Version(fixed), f"{name} {version}: {why}"


@pytest.mark.parametrize("name", [*LOCKS, "build"])
def test_each_line_of_a_lock_has_hashes_and_is_a_pin_of_the_constraints(name: str) -> None:
    path = REPO / "requirements" / f"{name}.lock"
    known = pins(REPO / "constraints.txt")
    entries = re.split(r"\n(?=[^\s#])", path.read_text().strip())
    for entry in entries:
        if not entry.startswith("#"):
            assert "--hash=sha256:" in entry, entry[:80]
    for package, versions in pins(path).items():
        assert versions <= known.get(package, versions), f"{package}: run python -m tools.lock"


@pytest.mark.parametrize(("name", "extras"), LOCKS.items())
def test_a_lock_has_what_the_project_asks_for(name: str, extras: tuple[str, ...]) -> None:
    found = pins(REPO / "requirements" / f"{name}.lock")
    wanted = list(PROJECT["dependencies"])
    for extra in extras:
        wanted += PROJECT["optional-dependencies"][extra]
    for text in wanted:
        one = Requirement(text)
        versions = found.get(canonicalize_name(one.name), set())
        assert versions, f"{one}: run python -m tools.lock"
        assert all(version in one.specifier for version in versions), one
