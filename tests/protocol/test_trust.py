"""Signed facts in TUF `custom`, and the judgement whether a variant fits a device."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pilotwave_protocol import dsse
from pilotwave_protocol.errors import BadTrustData, ProtocolError
from pilotwave_protocol.fields import Scalar
from pilotwave_protocol.manifest import FileEntry, Requires, Variant
from pilotwave_protocol.names import AGENT_MODEL
from pilotwave_protocol.states import Reason
from pilotwave_protocol.trust import DirectorKeys, ModelPolicy, VersionTarget, variant_fits

KEY = Ed25519PrivateKey.generate().public_key()
DIRECTOR = DirectorKeys("acme", {dsse.keyid(KEY): KEY}, 1)


def test_director_keys_read_back_as_they_were_written() -> None:
    read = DirectorKeys.from_custom(DIRECTOR.to_custom())
    assert (read.fleet, read.threshold, set(read.keys)) == ("acme", 1, set(DIRECTOR.keys))


@pytest.mark.parametrize(
    "change",
    [
        {"keys": {}},
        {"keys": {"0" * 64: dsse.raw_public(KEY).hex()}},  # under another key's name
        {"keys": {dsse.keyid(KEY): "zz"}},
        {"threshold": 0},
        {"threshold": 2},  # more than there are keys: no directive could ever pass
        {"fleet": "../x"},
    ],
)
def test_wrong_director_keys_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(BadTrustData):
        DirectorKeys.from_custom({**DIRECTOR.to_custom(), **change})


def test_a_policy_reads_back_and_a_wrong_one_is_refused() -> None:
    policy = ModelPolicy(3, frozenset({"a" * 64}))
    assert ModelPolicy.from_custom(policy.to_custom()) == policy
    for custom in (None, {}, {"floor": -1, "yanked": []}, {"floor": 0, "yanked": ["x"]}):
        with pytest.raises(ProtocolError):
            ModelPolicy.from_custom(custom)


def test_a_version_target_needs_a_counter_and_exactly_a_sha256() -> None:
    path, good = "models/detector/1.0.0.json", {"sha256": "a" * 64}
    target = VersionTarget.from_target(path, length=5, hashes=good, custom={"counter": 4})
    assert (target.model, target.version, target.counter, target.yanked) == (
        "detector",
        "1.0.0",
        4,
        None,
    )
    for hashes, custom in (({"sha512": "a"}, {"counter": 1}), (good, {}), (good, None)):
        with pytest.raises(ProtocolError):
            VersionTarget.from_target(path, length=5, hashes=hashes, custom=custom)


FILES = (FileEntry("model.onnx", 1, "a" * 64),)
FACTS: dict[str, Scalar] = {
    "arch": "aarch64",
    "memory_mb": 512,
    "runtime.onnxruntime": "1.23.2",
    "cpu.dotprod": True,
    "app": "2.4.1",
}


def variant(**fields: object) -> Variant:
    return Variant(**{"name": "v", "runtime": "onnxruntime", "entrypoint": "model.onnx",  # type: ignore[arg-type]
                      "files": FILES, **fields})  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),
        ({"runtime_version": ">=1.17"}, None),
        ({"runtime_version": ">=1.30"}, Reason.RUNTIME_MISSING),
        ({"runtime": "openvino"}, Reason.RUNTIME_MISSING),
        ({"runtime": "command"}, None),  # needs nothing but the device itself
        ({"requires": Requires(arch=("x86_64",))}, Reason.DOES_NOT_FIT),
        ({"requires": Requires(arch=("x86_64", "aarch64"))}, None),
        ({"requires": Requires(memory_mb=1024)}, Reason.DOES_NOT_FIT),
        ({"requires": Requires(memory_mb=512)}, None),
        ({"requires": Requires(accelerator="coral")}, Reason.DOES_NOT_FIT),
        ({"unsafe_format": True}, Reason.UNSAFE_FORMAT),
        ({"requires": Requires(cpu_any=("cpu.avx512_vnni", "cpu.dotprod"))}, None),
        ({"requires": Requires(cpu_any=("cpu.avx512_vnni",))}, Reason.DOES_NOT_FIT),
        ({"requires": Requires(facts={"app": ">=2.1,<3"})}, None),
        ({"requires": Requires(facts={"app": ">=2.1,<3", "jetson": "orin"})}, Reason.DOES_NOT_FIT),
        ({"requires": Requires(facts={"app": ">=3"})}, Reason.DOES_NOT_FIT),
        ({"requires": Requires(facts={"app": "2.4.1"})}, None),
        ({"requires": Requires(facts={"app": "2.4"})}, Reason.DOES_NOT_FIT),  # its very text
        ({"requires": Requires(facts={"arch": ">=1"})}, Reason.DOES_NOT_FIT),  # no version
        ({"requires": Requires(facts={"memory_mb": ">=256"})}, None),
        ({"requires": Requires(facts={"cpu.dotprod": "true"})}, None),
    ],
)
def test_a_variant_fits_by_runtime_hardware_and_permission(
    changes: dict[str, object], reason: Reason | None
) -> None:
    fit = variant_fits(variant(**changes), FACTS, allow_unsafe=False)
    assert fit.reason == reason
    assert fit.ok == (reason is None)
    assert bool(fit.sentence) == (reason is not None)


def test_a_fact_that_was_not_reported_excludes_nothing_but_runtimes() -> None:
    needs = variant(requires=Requires(arch=("x86_64",), memory_mb=4096))
    assert variant_fits(needs, {"runtime.onnxruntime": "1.20"}).ok
    assert variant_fits(needs, {}).reason == Reason.RUNTIME_MISSING
    odd = {"runtime.onnxruntime": "unknown"}
    assert variant_fits(variant(runtime_version=">=1"), odd).reason == Reason.RUNTIME_MISSING


def test_a_fact_that_does_not_fit_is_named_with_what_it_is_and_what_is_asked() -> None:
    needs = variant(requires=Requires(facts={"app": ">=3"}))
    assert variant_fits(needs, FACTS).sentence == "variant v needs app >=3; here it is 2.4.1"
    without = {key: value for key, value in FACTS.items() if key != "app"}
    said = variant_fits(needs, without).sentence
    assert said == "variant v needs app >=3; nothing is known of app here"
    dark = variant(requires=Requires(cpu_any=("cpu.vnni", "cpu.i8mm")))
    said = variant_fits(dark, FACTS).sentence
    assert said.endswith("one of cpu.vnni, cpu.i8mm; this one has none of them")


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"agent.updates": True, "runtime.wheelhouse": "23.0"}, None),
        ({"agent.updates": True}, Reason.RUNTIME_MISSING),  # no pip there
        # no launcher started it, or its settings forbid it; nothing else allows it instead
        ({"runtime.wheelhouse": "23.0"}, Reason.RUNTIME_MISSING),
        ({"agent.updates": False, "runtime.wheelhouse": "23.0"}, Reason.RUNTIME_MISSING),
    ],
)
@pytest.mark.parametrize("allow_unsafe", [False, True])
def test_an_agent_fits_where_it_can_replace_the_one_that_runs(
    facts: dict[str, Scalar], reason: Reason | None, allow_unsafe: bool
) -> None:
    agent = variant(runtime="wheelhouse", unsafe_format=True)
    fit = variant_fits(agent, facts, model=AGENT_MODEL, allow_unsafe=allow_unsafe)
    assert fit.reason == reason
    # under another name, the fact allows nothing
    other = variant_fits(agent, facts, model="detector", allow_unsafe=False)
    assert other.reason is Reason.UNSAFE_FORMAT
