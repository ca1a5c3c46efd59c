"""Write what is in a Python environment as CycloneDX 1.6 (JSON): a software bill of materials.

.venv/bin/python -m tools.sbom FOLDER [--name NAME]     on standard output

FOLDER is an environment or its site-packages: `.venv`, or `/opt/pilotwave` copied out of an image
(docs/upgrades.md). A package's hash is that of its RECORD, which has the SHA-256 of each of its
files; each below site-packages is compared with the file, but for compiled ones, and a package that
was changed after it was installed is an error. What the base image brings beside is not in it.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import sys
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, distributions
from pathlib import Path

from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


class Changed(Exception):
    """A file is not what its package's RECORD says."""


def main() -> int:
    """Print the bill. 1 where a package is not what was installed, 2 where there is none."""
    parser = argparse.ArgumentParser(prog="python -m tools.sbom", description=__doc__)
    parser.add_argument("folder", type=Path, help="an environment, or its site-packages")
    parser.add_argument("--name", default="pilotwave", help="what the environment is")
    arguments = parser.parse_args()
    try:
        found = {canonicalize_name(d.name): d for d in installed(arguments.folder)}
        if not found:
            print(f"{arguments.folder}: no installed package was found there", file=sys.stderr)
            return 2
        print(JsonV1Dot6(bill(arguments.name, found)).output_as_string(indent=1))
    except Changed as e:
        print(e, file=sys.stderr)
        return 1
    return 0


def installed(folder: Path) -> Iterable[Distribution]:
    """Return the packages of an environment."""
    inside = [*folder.glob("lib/python3*/site-packages")] or [folder]
    return distributions(path=[str(path) for path in inside])


def bill(name: str, found: dict[str, Distribution]) -> Bom:
    """Return the bill of an environment called `name`. Raises `Changed`."""
    bom = Bom()
    root = Component(name=name, type=ComponentType.APPLICATION, bom_ref=name)
    bom.metadata.component = root
    parts = {key: component(found[key]) for key in sorted(found)}
    bom.components.update(parts.values())
    for key, part in parts.items():
        bom.register_dependency(part, [parts[k] for k in needs(found[key]) if k in parts])
    bom.register_dependency(root, parts.values())
    return bom


def component(package: Distribution) -> Component:
    """Return one package, its hash that of its RECORD."""
    key = canonicalize_name(package.name)
    purl = PackageURL("pypi", name=key, version=package.version)
    record = check(package)
    return Component(
        name=key,
        version=package.version,
        type=ComponentType.LIBRARY,
        bom_ref=str(purl),
        purl=purl,
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=hashlib.sha256(record).hexdigest())],
    )


def check(package: Distribution) -> bytes:
    """Return the package's RECORD. Raises `Changed`."""
    record = package.read_text("RECORD")
    if record is None:
        raise Changed(f"{package.name}: it has no RECORD, so what it consists of is not known")
    for file in package.files or ():
        # RECORD itself; what is compiled, maybe again; scripts, which name the interpreter
        if file.hash is None or file.suffix == ".pyc" or ".." in file.parts:
            continue
        try:
            data = Path(str(file.locate())).read_bytes()
        except OSError as e:
            raise Changed(f"{package.name}: {file} is in its RECORD, and {e.strerror}") from e
        digest = hashlib.new(file.hash.mode, data).digest()
        if base64.urlsafe_b64encode(digest).rstrip(b"=").decode() != file.hash.value:
            raise Changed(f"{package.name}: {file} was changed after it was installed")
    return record.encode()


def needs(package: Distribution) -> Iterator[str]:
    """Yield the packages that one asks for, without its extras."""
    for text in package.requires or ():
        one = Requirement(text)
        if one.marker is None or one.marker.evaluate({"extra": ""}):
            yield canonicalize_name(one.name)


if __name__ == "__main__":
    sys.exit(main())
