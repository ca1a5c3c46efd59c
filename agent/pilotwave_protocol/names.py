"""Names, versions and paths: one strict pattern each, checked on both sides.

TUF delegation patterns are no path check (`models/m/*` matches `models/m/..`), so every name that
ends up in a path, a URL or a TUF target is checked here first. Each `check_*` returns its argument
or raises `BadName` with what was expected and what came.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from packaging.version import InvalidVersion
from packaging.version import Version as Pep440

from pilotwave_protocol.errors import BadName

DIRECTOR_PATH = "fleet/director"
AGENT_MODEL = "pilotwave-agent"
"""The reserved model whose versions are the agent itself."""
FACT = "fact."
_SLUG = re.compile(r"[a-z0-9]+(?:[._-][a-z0-9]+)*")
_KEY = re.compile(r"[a-z][a-z0-9]*(?:[._-][a-z0-9]+)*")
_METRIC = re.compile(r"[a-z][a-z0-9_.]{0,63}")
_VERSION = re.compile(r"[0-9A-Za-z](?:[0-9A-Za-z.+-]*[0-9A-Za-z])?")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_PART = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._+@=-]*[A-Za-z0-9_+@=-])?")
_SEMVER = re.compile(
    r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)"
    r"(?:-((?:0|[1-9]\d*|\d*[A-Za-z-][0-9A-Za-z-]*)(?:\.(?:0|[1-9]\d*|\d*[A-Za-z-][0-9A-Za-z-]*))*))?"
    r"(?:\+([0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*))?",
    re.ASCII,
)
_SLUG_WORDS = "small letters and digits, joined by single '.', '_' or '-', at most 64 characters"
MAX_PATH = 240
MAX_PATH_DEPTH = 8


def _show(value: object) -> str:
    """Quote a rejected value for an error: one line, printable, at most 80 characters."""
    text = ascii(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _match(what: str, pattern: re.Pattern[str], limit: int, words: str, value: object) -> str:
    if not isinstance(value, str) or len(value) > limit or not pattern.fullmatch(value):
        raise BadName(f"{what}: expected {words}; got {_show(value)}")
    return value


def check_model(value: object) -> str:
    """Check a model name: `detector`, `ocr.small`, `lane-keeper`."""
    return _match("model name", _SLUG, 64, _SLUG_WORDS, value)


def check_variant(value: object) -> str:
    """Check a variant name: `onnx-int8`."""
    return _match("variant name", _SLUG, 64, _SLUG_WORDS, value)


def check_plan(value: object) -> str:
    """Check the name of a training plan: `autumn-1`."""
    return _match("plan name", _SLUG, 64, _SLUG_WORDS, value)


def check_label_source(value: object) -> str:
    """Check the name of what labels examples: `operator`, `sensor`."""
    return _match("label source", _SLUG, 64, _SLUG_WORDS, value)


def check_device(value: object) -> str:
    """Check a device name: `cam-017`."""
    return _match("device name", _SLUG, 64, _SLUG_WORDS, value)


def check_group(value: object) -> str:
    """Check a group name: `berlin-cams`."""
    return _match("group name", _SLUG, 64, _SLUG_WORDS, value)


def check_person(value: object) -> str:
    """Check the name of a person's account: `ada`."""
    return _match("name", _SLUG, 64, _SLUG_WORDS, value)


def check_fleet(value: object) -> str:
    """Check a fleet name."""
    return _match("fleet name", _SLUG, 64, _SLUG_WORDS, value)


def check_label_key(value: object) -> str:
    """Check a label key: `site`, `hw.rev`. What begins with `fact.` is a fact, and no label."""
    words = "a small letter first, then small letters and digits joined by '.', '_' or '-', <= 64"
    found = _match("label key", _KEY, 64, words, value)
    if found.startswith(FACT):
        raise BadName(f"label key: expected one that does not begin with {FACT!r}; got {found!r}")
    return found


def check_selector_key(value: object) -> str:
    """Check what a selector or a gate may ask by: a label, `site`, or a fact, `fact.arch`."""
    if isinstance(value, str) and value.startswith(FACT):
        check_fact_key(value[len(FACT) :])
        return value
    return check_label_key(value)


def check_fact_key(value: object) -> str:
    """Check a fact key: `runtime.onnxruntime`, `memory_mb`."""
    words = "a small letter first, then small letters and digits joined by '.', '_' or '-', <= 64"
    return _match("fact key", _KEY, 64, words, value)


def check_label_value(value: object) -> str:
    """Check a label value: any printable text without control characters, 1 to 128 characters."""
    if isinstance(value, str) and 1 <= len(value) <= 128 and value.isprintable():
        return value
    raise BadName(f"label value: expected 1 to 128 printable characters; got {_show(value)}")


def check_metric(value: object) -> str:
    """Check a live metric's name: `latency_ms`, `error`, `score`, `queue.depth`."""
    words = "a small letter, then small letters, digits, '_' and '.', at most 64 characters"
    return _match("metric", _METRIC, 64, words, value)


def is_metric(name: str) -> bool:
    """Say whether this may be a live metric's name."""
    return _METRIC.fullmatch(name) is not None


def check_sha256(value: object) -> str:
    """Check a SHA-256 digest: 64 small hex digits."""
    return _match("sha256", _SHA256, 64, "64 hex digits in small letters", value)


def check_file_path(value: object) -> str:
    """Check a file's path inside a variant: relative, `/` between plain components.

    No empty, hidden, `.` or `..` component, no backslash, no character that a file system, a URL or
    a shell gives a meaning to; at most 240 characters and 8 components.
    """
    words = f"relative components of letters, digits and ._+@=- (no hidden one), <= {MAX_PATH}"
    if not isinstance(value, str) or len(value) > MAX_PATH:
        raise BadName(f"file path: expected {words}; got {_show(value)}")
    parts = value.split("/")
    if len(parts) > MAX_PATH_DEPTH or not all(_PART.fullmatch(p) for p in parts):
        raise BadName(f"file path: expected {words}; got {_show(value)}")
    return value


class VersionKey(NamedTuple):
    """A total order over PEP 440 and SemVer strings; equal keys mean the same version."""

    release: tuple[int, ...]
    # (phase, identifiers): phase 0 development, 1 pre-release, 2 the release itself
    pre: tuple[int, tuple[tuple[int, int, str], ...]]
    post: int
    dev: tuple[int, int]
    build: tuple[tuple[int, int, str], ...]


def _identifiers(dotted: str) -> tuple[tuple[int, int, str], ...]:
    """Order identifiers as SemVer 11.4 does: numbers before words, by value."""
    parts = re.split(r"[.]", dotted)
    return tuple((0, int(p), "") if p.isdecimal() else (1, 0, p) for p in parts)


def _strip_zeros(release: tuple[int, ...]) -> tuple[int, ...]:
    while len(release) > 1 and release[-1] == 0:
        release = release[:-1]
    return release


_FINAL = (2, ())
_NO_DEV = (1, 0)
# SemVer spells phases out where PEP 440 abbreviates; both must order as one
_PHASES = {"a": "alpha", "b": "beta", "rc": "rc"}


def _pep440_key(version: Pep440) -> VersionKey:
    pre: tuple[int, tuple[tuple[int, int, str], ...]] = _FINAL
    if version.pre is not None:
        letter, number = version.pre
        pre = (1, ((1, 0, _PHASES[letter]), (0, number, "")))
    elif version.dev is not None and version.post is None:
        pre = (0, ())
    dev = _NO_DEV if version.dev is None else (0, version.dev)
    post = -1 if version.post is None else version.post
    build = _identifiers(version.local) if version.local else ()
    return VersionKey(_strip_zeros(version.release), pre, post, dev, build)


@lru_cache(maxsize=1024)
def version_key(value: str) -> VersionKey:
    """Order a version. A PEP 440 reading is tried first, SemVer second.

    `1.0` and `1.0.0` are the same version, and so are `1.0.0rc1` and `1.0.0-rc.1`. Build metadata
    (`+cu12`) orders after the plain version, so that two builds never count as one.
    """
    try:
        parsed = Pep440(value)
    except InvalidVersion:
        pass
    else:
        if parsed.epoch == 0:
            return _pep440_key(parsed)
    found = _SEMVER.fullmatch(value)
    if found is None:
        raise BadName(
            f"version: expected PEP 440 or SemVer, like 1.4.0 or 2.0.0-rc.1; got {_show(value)}"
        )
    major, minor, patch, pre, build = found.groups()
    release = _strip_zeros((int(major), int(minor), int(patch)))
    phase = (1, _identifiers(pre)) if pre else _FINAL
    return VersionKey(release, phase, -1, _NO_DEV, _identifiers(build) if build else ())


def check_version(value: object) -> str:
    """Check a version: PEP 440 (without an epoch) or SemVer, at most 64 characters."""
    words = "PEP 440 or SemVer, like 1.4.0 or 2.0.0-rc.1, at most 64 characters"
    text = _match("version", _VERSION, 64, words, value)
    try:
        version_key(text)
    except ValueError as e:  # int() refuses numbers of thousands of digits; 64 never get there
        raise BadName(f"version: expected {words}; got {_show(value)}") from e
    return text


def is_version_of_agent(reported: str, version: str) -> bool:
    """Say whether an agent that calls itself `reported` (`0.2.0+3f2a9c1e`) is the `version` of
    `AGENT_MODEL`; a version without a build stands for each of its builds."""
    try:
        wanted = version_key(version)
        return wanted in (version_key(reported), version_key(reported.partition("+")[0]))
    except (BadName, ValueError):
        return False


def role_for_model(model: str) -> str:
    """Return the delegated TUF role of a model: `models-detector`."""
    return f"models-{check_model(model)}"


def model_of_role(role: str) -> str:
    """Return the model of a delegated TUF role, or raise `BadName`."""
    if not role.startswith("models-"):
        raise BadName(f"role: expected models-<model>; got {_show(role)}")
    return check_model(role[len("models-") :])


def delegation_path(model: str) -> str:
    """Return the path pattern that a model's role is trusted for: `models/detector/*`."""
    return f"models/{check_model(model)}/*"


def policy_path(model: str) -> str:
    """Return the pseudo-target that carries a model's floor and yanked digests."""
    return f"models/{check_model(model)}/_policy"


def reset_path(model: str) -> str:
    """Return the path of a model's reset, a pseudo-target of the top-level targets."""
    return f"models/{check_model(model)}/_reset"


def target_path(model: str, version: str) -> str:
    """Return the TUF target of a version's manifest: `models/detector/1.4.0.json`."""
    return f"models/{check_model(model)}/{check_version(version)}.json"


def parse_target_path(path: str) -> tuple[str, str]:
    """Return (model, version) of a version manifest's target path, or raise `BadName`."""
    parts = path.split("/")
    if len(parts) != 3 or parts[0] != "models" or not parts[2].endswith(".json"):
        raise BadName(f"target path: expected models/<model>/<version>.json; got {_show(path)}")
    return check_model(parts[1]), check_version(parts[2][: -len(".json")])
