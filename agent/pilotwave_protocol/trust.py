"""Read what TUF metadata says about Pilotwave, and whether a variant fits a device.

TUF targets carry our facts in `custom`: a version's release counter and yank, a model's floor and
yanked digests (`models/<model>/_policy`), what replaces the word of a stolen publisher key
(`models/<model>/_reset`), the fleet's name and director keys (`fleet/director`).
This module gives them types; that the metadata was verified is the caller's to have done. It
imports no TUF code, so that every process can afford it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion, Version

from pilotwave_protocol import dsse, names
from pilotwave_protocol.errors import BadTrustData, ProtocolError
from pilotwave_protocol.fields import Fields, Scalar
from pilotwave_protocol.manifest import Variant, is_specifier
from pilotwave_protocol.messages.facts import AGENT_UPDATES
from pilotwave_protocol.names import AGENT_MODEL
from pilotwave_protocol.states import Reason

MAX_DIRECTOR_KEYS = 8
MAX_YANKED = 10_000
MAX_REMOVED = 1000
MAX_PLANS = 32


@dataclass(frozen=True)
class DirectorKeys:
    """Who may sign directives: the fleet's name, its director keys and how many must sign.

    `order` names the keys from the oldest to the newest where several are listed; empty: unsaid.
    """

    fleet: str
    keys: Mapping[str, Ed25519PublicKey]
    threshold: int
    order: tuple[str, ...] = ()

    @classmethod
    def from_custom(cls, custom: object) -> DirectorKeys:
        """Read the `custom` of `fleet/director`: {fleet, keys: {keyid: hex}, threshold, order?}."""
        f = Fields(custom, "fleet/director", BadTrustData)
        fleet = f.named("fleet", names.check_fleet)
        found = f.mapping("keys", limit=MAX_DIRECTOR_KEYS)
        keys = dict(_director_key(f, keyid, value) for keyid, value in found.items())
        threshold = f.integer("threshold", low=1, high=max(1, len(keys)))
        if not keys:
            raise f.fail("keys", "at least one director key", found)
        order = tuple(f.texts("order", limit=MAX_DIRECTOR_KEYS, default=[]))
        if order and sorted(order) != sorted(keys):
            raise f.fail("order", "each listed key once", list(order))
        return cls(fleet, keys, threshold, order)

    def to_custom(self) -> dict[str, Any]:
        """Write the `custom` of `fleet/director`."""
        keys = {keyid: dsse.raw_public(key).hex() for keyid, key in self.keys.items()}
        order = {"order": list(self.order)} if self.order else {}
        return {"fleet": self.fleet, "keys": keys, "threshold": self.threshold, **order}


def _director_key(f: Fields, keyid: str, value: object) -> tuple[str, Ed25519PublicKey]:
    try:
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(names.check_sha256(value)))
    except (ValueError, ProtocolError) as e:
        raise f.fail(f"keys.{keyid[:16]}", "32 raw bytes of an Ed25519 key, in hex", value) from e
    if dsse.keyid(key) != keyid:
        raise f.fail("keys", "each key under the SHA-256 of its raw bytes", keyid)
    return keyid, key


@dataclass(frozen=True)
class VersionTarget:
    """What the publisher signed about one version: the manifest's digest, its counter, a yank."""

    model: str
    version: str
    sha256: str
    length: int
    counter: int
    unsafe_format: bool = False
    yanked: str | None = None  # the publisher's reason

    @classmethod
    def from_target(
        cls, path: str, *, length: int, hashes: Mapping[str, str], custom: object
    ) -> VersionTarget:
        """Read one TUF target `models/<model>/<version>.json`."""
        model, version = names.parse_target_path(path)
        if set(hashes) != {"sha256"}:
            raise BadTrustData(f"{path}: expected exactly a sha256; got {sorted(hashes)}")
        f = Fields(custom, path, BadTrustData)
        yanked = f.opt_inner("yanked")
        return cls(
            model=model,
            version=version,
            sha256=names.check_sha256(hashes["sha256"]),
            length=length,
            counter=f.integer("counter", low=1),
            unsafe_format=f.boolean("unsafe_format", default=False),
            yanked=None if yanked is None else yanked.text("reason", limit=512),
        )


@dataclass(frozen=True)
class ModelPolicy:
    """A publisher's word on old versions: nothing below `floor`, nothing in `yanked`, ever. And the
    training plans that hold now, their digests by name: no entries of their own among the targets,
    since an agent that knows none would refuse the whole role."""

    floor: int = 0
    yanked: frozenset[str] = frozenset()
    plans: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_custom(cls, custom: object) -> ModelPolicy:
        """Read the `custom` of `models/<model>/_policy`: {floor, yanked: [manifest sha256],
        plans?: {name: plan sha256}}."""
        f = Fields(custom, "_policy", BadTrustData)
        digests = f.items("yanked", limit=MAX_YANKED)
        plans = f.mapping("plans", limit=MAX_PLANS, default={})
        return cls(
            f.integer("floor"),
            frozenset(names.check_sha256(d) for d in digests),
            {names.check_plan(n): names.check_sha256(d) for n, d in plans.items()},
        )

    def to_custom(self) -> dict[str, Any]:
        """Write the `custom` of `models/<model>/_policy`."""
        plans = {"plans": dict(sorted(self.plans.items()))} if self.plans else {}
        return {"floor": self.floor, "yanked": sorted(self.yanked), **plans}


@dataclass(frozen=True)
class ModelReset:
    """The targets role's word that a publisher key was stolen, and what holds instead.

    Whoever sees a higher `epoch` than it knew forgets the model's floor and yanks, and goes on with
    this `floor`, with `yanked` (the digests of versions that were removed), and with what the
    model's role says from its document `role_version` on. Release counters go on above `counter`.
    """

    epoch: int
    role_version: int
    counter: int = 0
    floor: int = 0
    yanked: frozenset[str] = frozenset()

    @classmethod
    def from_custom(cls, custom: object) -> ModelReset:
        """Read the `custom` of `models/<model>/_reset`."""
        f = Fields(custom, "_reset", BadTrustData)
        digests = f.items("yanked", limit=MAX_REMOVED)
        return cls(
            epoch=f.integer("epoch", low=1),
            role_version=f.integer("role_version", low=1),
            counter=f.integer("counter"),
            floor=f.integer("floor"),
            yanked=frozenset(names.check_sha256(d) for d in digests),
        )

    def to_custom(self) -> dict[str, Any]:
        """Write the `custom` of `models/<model>/_reset`."""
        return {**vars(self), "yanked": sorted(self.yanked)}


@dataclass(frozen=True)
class Fit:
    """Whether a variant can run on a device; if not, the reason and a sentence."""

    reason: Reason | None = None
    sentence: str = ""

    @property
    def ok(self) -> bool:
        """Say whether it fits."""
        return self.reason is None


_FITS = Fit()
_BUILT_IN_RUNTIMES = frozenset({"command"})


def variant_fits(
    variant: Variant, facts: Mapping[str, Scalar], *, model: str = "", allow_unsafe: bool = True
) -> Fit:
    """Judge a variant against a device's facts. The server chooses by this, the device checks.

    Of architecture and memory, what the device did not report excludes nothing. A runtime, an
    accelerator, an instruction or any other fact that is asked for and not reported is not there.
    `allow_unsafe` is the device's own setting. The agent itself
    (`model` is `AGENT_MODEL`) is code by its nature: what allows it is a fact of its own.
    """
    if model == AGENT_MODEL:
        if not facts.get(AGENT_UPDATES):
            return Fit(
                Reason.RUNTIME_MISSING,
                "the agent there cannot replace itself: its service was installed by an older "
                "agent or by hand, or its settings say self_update = false",
            )
    elif variant.unsafe_format and not allow_unsafe:
        return Fit(
            Reason.UNSAFE_FORMAT,
            f"variant {variant.name} has a format that can run code when loaded, "
            "and this device's configuration does not allow that (allow_unsafe_formats)",
        )
    return (
        _runtime_fits(variant, facts)
        or _hardware_fits(variant, facts)
        or _cpu_fits(variant, facts)
        or _facts_fit(variant, facts)
        or _FITS
    )


def _runtime_fits(variant: Variant, facts: Mapping[str, Scalar]) -> Fit | None:
    if variant.runtime in _BUILT_IN_RUNTIMES:
        return None
    have = facts.get(f"runtime.{variant.runtime}")
    if have is None:
        sentence = f"variant {variant.name} needs {variant.runtime}, which is not installed here"
        return Fit(Reason.RUNTIME_MISSING, sentence)
    if not variant.runtime_version:
        return None
    if _in_range(str(have), variant.runtime_version):
        return None
    wants = f"{variant.runtime} {variant.runtime_version}"
    return Fit(Reason.RUNTIME_MISSING, f"variant {variant.name} needs {wants}; here is {have}")


def _hardware_fits(variant: Variant, facts: Mapping[str, Scalar]) -> Fit | None:
    requires, arch, memory = variant.requires, facts.get("arch"), facts.get("memory_mb")
    if requires.arch and arch is not None and arch not in requires.arch:
        wants = " or ".join(requires.arch)
        return Fit(Reason.DOES_NOT_FIT, f"variant {variant.name} is for {wants}; this is {arch}")
    if requires.accelerator and not facts.get(f"accelerator.{requires.accelerator}"):
        sentence = f"variant {variant.name} needs {requires.accelerator}, which is not here"
        return Fit(Reason.DOES_NOT_FIT, sentence)
    known = isinstance(memory, (int, float))
    if requires.memory_mb and known and float(str(memory)) < requires.memory_mb:
        sentence = f"variant {variant.name} needs {requires.memory_mb} MB of memory; here {memory}"
        return Fit(Reason.DOES_NOT_FIT, sentence)
    return None


def _cpu_fits(variant: Variant, facts: Mapping[str, Scalar]) -> Fit | None:
    asked = variant.requires.cpu_any
    if not asked or any(facts.get(key) for key in asked):
        return None
    sentence = f"variant {variant.name} needs a processor with one of {', '.join(asked)}"
    return Fit(Reason.DOES_NOT_FIT, f"{sentence}; this one has none of them")


def _facts_fit(variant: Variant, facts: Mapping[str, Scalar]) -> Fit | None:
    for key, asked in sorted(variant.requires.facts.items()):
        have = facts.get(key)
        if have is None:
            sentence = f"variant {variant.name} needs {key} {asked}; nothing is known of {key} here"
            return Fit(Reason.DOES_NOT_FIT, sentence)
        if not _is_as_asked(have, asked):
            sentence = f"variant {variant.name} needs {key} {asked}; here it is {have}"
            return Fit(Reason.DOES_NOT_FIT, sentence)
    return None


def _is_as_asked(have: Scalar, asked: str) -> bool:
    if asked in ("true", "false") and have in (0, 1):
        return bool(have) == (asked == "true")  # SQLite gives a JSON true as 1
    return _in_range(str(have), asked) if is_specifier(asked) else str(have) == asked


def _in_range(have: str, specifier: str) -> bool:
    try:
        return SpecifierSet(specifier).contains(Version(have), prereleases=True)
    except InvalidVersion:
        return False


def facts_asked(variants: Iterable[Variant]) -> frozenset[str]:
    """Return the names of facts that these variants ask for by name."""
    return frozenset(key for v in variants for key in (*v.requires.cpu_any, *v.requires.facts))
