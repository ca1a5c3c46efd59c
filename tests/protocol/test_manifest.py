"""Version manifests: what a publisher may say, and what is refused with the field's path."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from pilotwave_agent.live import compare
from pilotwave_protocol.errors import BadManifest
from pilotwave_protocol.manifest import COMPARERS, Comparison, parse_manifest

SHA = "a" * 64
GOOD: dict[str, Any] = {
    "schema": "pilotwave/version/1",
    "model": "detector",
    "version": "1.4.0",
    "counter": 14,
    "description": "better at night",
    "source": {"commit": "abc"},
    "metrics": {"top1": "0.931"},
    "variants": [
        {
            "name": "onnx-int8",
            "runtime": "onnxruntime",
            "runtime_version": ">=1.17",
            "precision": "int8",
            "requires": {"arch": ["x86_64"], "accelerator": None, "memory_mb": 64},
            "entrypoint": "model.onnx",
            "files": [
                {"path": "model.onnx", "size": 123, "sha256": SHA},
                {"path": "selftest.safetensors", "size": 9, "sha256": "b" * 64},
            ],
            "inputs": [{"name": "x", "dtype": "float32", "shape": [-1, 64]}],
            "outputs": [{"name": "y", "dtype": "float32", "shape": [-1, 10]}],
            "selftest": {"cases": "selftest.safetensors", "atol": "1e-3", "rtol": "1e-3"},
        }
    ],
}


def with_change(path: str, value: object) -> bytes:
    """Return GOOD with the field at a dotted path replaced (numbers index lists)."""
    data = copy.deepcopy(GOOD)
    *parents, last = [int(p) if p.isdecimal() else p for p in path.split(".")]
    place: Any = data
    for key in parents:
        place = place[key]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return json.dumps(data).encode()


def test_a_good_manifest_reads_and_writes_back_the_same() -> None:
    manifest = parse_manifest(json.dumps(GOOD).encode())
    assert manifest.variants[0].size == 132
    assert manifest.variants[0].inputs[0].shape == (-1, 64)
    assert parse_manifest(manifest.to_bytes()) == manifest
    assert not manifest.unsafe_format


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("schema", "pilotwave/version/3", "schema"),
        ("schema", "pilotwave/version/2", "version/1, the oldest"),  # nothing in it needs 2
        ("model", "../x", "model"),
        ("version", "latest", "version"),
        ("counter", 0, "counter"),
        ("counter", True, "counter"),
        ("counter", 1.5, "counter"),
        ("description", "x\0", "description"),
        ("variants", [], "at least one"),
        ("variants", ..., "missing"),
        ("variants", {}, "variants"),
        ("extra", 1, "unknown field 'extra'"),
        ("variants.0.extra", 1, "unknown field"),
        ("variants.0.name", "a/b", "name"),
        ("variants.0.runtime_version", "newest", "specifier"),
        ("variants.0.entrypoint", "other.onnx", "entrypoint"),
        ("variants.0.files.0.path", "../model.onnx", "file path"),
        ("variants.0.files.0.path", "/model.onnx", "file path"),
        ("variants.0.files.1.path", "MODEL.onnx", "came twice"),  # one file on some systems
        ("variants.0.files.1.path", "model.onnx/x", "a file or a folder"),
        ("variants.0.files.0.size", -1, "size"),
        ("variants.0.files.0.size", 2**60, "size"),
        ("variants.0.files.0.sha256", "A" * 64, "sha256"),
        ("variants.0.inputs.0.shape", [-2], "shape"),
        ("variants.0.inputs.0.shape", [True], "shape"),
        ("variants.0.selftest.cases", "nope.safetensors", "cases"),
        ("variants.0.selftest.atol", "NaN", "finite"),
        ("variants.0.selftest.atol", "-1", "finite"),
        ("variants.0.selftest.rtol", "much", "decimal"),
        ("variants.0.requires.memory_mb", -5, "memory_mb"),
    ],
)
def test_a_wrong_field_is_refused_and_named(path: str, value: object, says: str) -> None:
    with pytest.raises(BadManifest, match=says):
        parse_manifest(with_change(path, value))


def test_two_variants_of_one_name_are_refused() -> None:
    with pytest.raises(BadManifest, match="came twice"):
        parse_manifest(with_change("variants", GOOD["variants"] * 2))


def test_a_manifest_over_its_size_is_refused_before_it_is_parsed() -> None:
    with pytest.raises(BadManifest, match="bytes"):
        parse_manifest(b" " * (1 << 21))


NEW_FIELDS = [
    ("variants.0.requires.cpu_any", ["cpu.avx512_vnni", "cpu.avx_vnni"]),
    ("variants.0.requires.facts", {"app": ">=2.1,<3", "jetson": "orin"}),
    ("variants.0.selftest.min_agreement", "0.97"),
    ("metrics", {f"m{n}": "1" for n in range(33)}),
]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("variants.0.requires.cpu_any", []),
        ("variants.0.requires.cpu_any", None),
        ("variants.0.requires.facts", {}),
        ("variants.0.selftest.min_agreement", None),
    ],
)
def test_a_new_field_that_says_nothing_would_be_unknown_to_agents_of_schema_1(
    path: str, value: object
) -> None:
    for raw in (with_change(path, value), of_schema_2(path, value)):
        with pytest.raises(BadManifest, match="left out"):
            parse_manifest(raw)


def of_schema(number: int, path: str, value: object) -> bytes:
    data = json.loads(with_change(path, value))
    return json.dumps({**data, "schema": f"pilotwave/version/{number}"}).encode()


def of_schema_2(path: str, value: object) -> bytes:
    return of_schema(2, path, value)


@pytest.mark.parametrize(("path", "value"), NEW_FIELDS)
def test_a_new_field_needs_schema_2_and_is_written_in_it(path: str, value: object) -> None:
    with pytest.raises(BadManifest, match="version/2, the oldest"):
        parse_manifest(with_change(path, value))
    manifest = parse_manifest(of_schema_2(path, value))
    assert manifest.schema == 2
    assert b'"pilotwave/version/2"' in manifest.to_bytes()
    assert parse_manifest(manifest.to_bytes()) == manifest


COMPARE = "variants.0.compare"


@pytest.mark.parametrize(
    "said",
    [{"by": "argmax"}, {"by": "iou", "tolerance": "0.3"}, {"by": "cosine", "output": "y"}],
)
def test_how_answers_are_compared_needs_schema_3(said: dict[str, str]) -> None:
    for older in (with_change(COMPARE, said), of_schema(2, COMPARE, said)):
        with pytest.raises(BadManifest, match="version/3, the oldest"):
            parse_manifest(older)
    manifest = parse_manifest(of_schema(3, COMPARE, said))
    assert manifest.schema == 3
    assert manifest.variants[0].compare == Comparison(**said)
    assert parse_manifest(manifest.to_bytes()) == manifest
    assert json.loads(manifest.to_bytes())["variants"][0]["compare"] == said


@pytest.mark.parametrize(
    ("said", "says"),
    [
        (None, "left out"),
        ({}, "left out"),
        ("argmax", "object"),
        ({"by": "feeling"}, "one of argmax"),
        ({"output": "y"}, "compare.by"),
        ({"by": "argmax", "output": "z"}, "compare.output: expected one of y"),
        ({"by": "argmax", "tolerance": 0.1}, "text"),
        ({"by": "argmax", "tolerance": "-1"}, "at least 0"),
        ({"by": "argmax", "why": "1"}, "why"),
    ],
)
def test_a_wrong_comparison_is_refused_and_named(said: object, says: str) -> None:
    with pytest.raises(BadManifest, match=says):
        parse_manifest(of_schema(3, COMPARE, said))


def test_each_comparer_of_a_manifest_is_one_that_applications_have() -> None:
    assert set(COMPARERS) == set(compare.COMPARERS)


def test_without_new_fields_the_bytes_are_those_of_schema_1() -> None:
    written = parse_manifest(json.dumps(GOOD).encode()).to_bytes()
    assert b'"pilotwave/version/1"' in written
    for name in (b"cpu_any", b'"facts"', b"min_agreement", b"compare"):
        assert name not in written


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("variants.0.requires.cpu_any", ["CPU"], "fact key"),
        ("variants.0.requires.cpu_any", ["cpu.a", "cpu.a"], "came twice"),
        ("variants.0.requires.cpu_any", ["cpu.a"] * 17, "at most 16"),
        ("variants.0.requires.cpu_any", "cpu.a", "list"),
        ("variants.0.requires.facts", {"a b": "1"}, "fact key"),
        ("variants.0.requires.facts", {"app": ">=new"}, "specifier"),
        ("variants.0.requires.facts", {"app": ""}, "printable"),
        ("variants.0.requires.facts", {"app": "a\nb"}, "printable"),
        ("variants.0.requires.facts", {"app": 2}, "texts"),
        ("variants.0.requires.facts", {f"a{n}": "1" for n in range(17)}, "at most 16"),
        ("variants.0.selftest.min_agreement", "0", "above 0"),
        ("variants.0.selftest.min_agreement", "1.01", "up to 1"),
        ("variants.0.selftest.min_agreement", "NaN", "finite"),
        ("variants.0.selftest.min_agreement", 0.97, "text"),
        ("metrics", {f"m{n}": "1" for n in range(1025)}, "1024"),
    ],
)
def test_a_wrong_field_of_schema_2_is_refused_and_named(
    path: str, value: object, says: str
) -> None:
    with pytest.raises(BadManifest, match=says):
        parse_manifest(of_schema_2(path, value))
