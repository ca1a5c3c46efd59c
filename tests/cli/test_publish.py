"""From model files to a signed version, over links that break and against others in a hurry."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import shutil
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from pilotwave_protocol.signing import generate_key
from tests.cli.conftest import DIGITS, REPO
from tests.cli.cutting import cutting_proxy
from tests.cli.operator import Operator
from tests.server.device_api.peer import SimulatedDevice
from tests.servers import ServerProcess

MODELS = REPO / "tests" / "data" / "models"


def test_a_version_is_described_from_its_files(pw: Operator, model: str) -> None:
    said = pw(
        *("publish", model, "1.0.0", "--variant", f"onnx-fp32={DIGITS / '1.0.0'}"),
        *("--key", pw.keys / "publisher.pem", "--description", "first", "--metric", "top1=0.93"),
        *("--source", "commit=abc", "--requires", "arch=x86_64,aarch64"),
        *("--requires", "memory_mb=64", "--atol", "1e-4", "--max-latency-ms", 50),
    )
    assert f"published {model} 1.0.0" in said
    assert "x float32[?, 64] -> probs float32[?, 10]" in said
    found = pw.json("versions", "show", model, "1.0.0")
    (variant,) = found["variants"]
    assert (found["description"], found["metrics"]) == ("first", {"top1": "0.93"})
    assert variant["runtime"] == "onnxruntime"
    assert variant["requires"]["arch"] == ["x86_64", "aarch64"]
    assert variant["requires"]["memory_mb"] == 64
    assert variant["selftest"]["max_latency_ms"] == 50
    assert variant["inputs"] == [{"name": "x", "dtype": "float32", "shape": [-1, 64]}]
    shown = pw("versions", "show", model, "1.0.0")
    assert "x float32[?, 64]" in shown
    assert found["sha256"] in shown


def test_what_is_said_of_one_variant_holds_for_that_one(pw: Operator, model: str) -> None:
    for name in ("int8", "fp32"):
        shutil.copytree(DIGITS / "1.0.0", pw.home / name)
    pw(
        *("publish", model, "1.0.0", "--variant", "int8=int8", "--variant", "fp32=fp32"),
        *("--atol", "int8:0.5", "--atol", "1e-4", "--requires", "int8:arch=aarch64"),
    )
    variants = {v["name"]: v for v in pw.json("versions", "show", model, "1.0.0")["variants"]}
    assert variants["int8"]["selftest"]["atol"] == "0.5"
    assert variants["fp32"]["selftest"]["atol"] == "1e-4"
    assert variants["int8"]["requires"]["arch"] == ["aarch64"]
    assert variants["fp32"]["requires"]["arch"] == []


def test_what_only_newer_agents_read_is_said_and_the_devices_are_counted(
    pw: Operator, model: str
) -> None:
    (made,) = pw.json("codes", "create")["items"]
    with httpx.Client(base_url=pw.url) as client:
        assert SimulatedDevice(f"{model}-1", client).enrol(made["code"]).is_success
    newer = ("publish", model, "1.0.0", "--variant", f"v={DIGITS / '1.0.0'}", "--no-try")
    done = pw.run(
        *(*newer, "--key", pw.keys / "publisher.pem", "--min-agreement", "0.97"),
        *("--requires", "cpu_any=cpu.avx2,cpu.neon", "--requires", "fact.app=>=2.1,<3"),
    )
    assert done.returncode == 0, done.stderr
    held = re.search(r"(\d+) of (\d+) devices have an agent that cannot read", done.stderr)
    assert held is not None, done.stderr
    assert 1 <= int(held[1]) <= int(held[2])
    found = pw.json("versions", "show", model, "1.0.0")
    assert found["schema_number"] == 2
    (variant,) = found["variants"]
    assert variant["requires"]["cpu_any"] == ["cpu.avx2", "cpu.neon"]
    assert variant["requires"]["facts"] == {"app": ">=2.1,<3"}
    assert variant["selftest"]["min_agreement"] == "0.97"


def test_how_answers_are_compared_in_shadow_is_signed_with_the_version(
    pw: Operator, model: str
) -> None:
    publish = ("publish", model, "1.0.0", "--no-try", "--variant", f"v={DIGITS / '1.0.0'}")
    signed = ("--key", pw.keys / "publisher.pem")
    line = pw.fails(*publish, *signed, "--compare", "feeling", status=2)
    assert "argmax|relative_l2|cosine|iou[,output=NAME][,tolerance=N]" in line
    pw(*publish, *signed, "--compare", "v:argmax,tolerance=0.1")
    found = pw.json("versions", "show", model, "1.0.0")
    assert found["schema_number"] == 3
    (variant,) = found["variants"]
    assert variant["compare"] == {"by": "argmax", "output": None, "tolerance": "0.1"}


def test_a_repeated_publish_is_no_error_and_other_content_is(pw: Operator, model: str) -> None:
    publish = ("publish", model, "1.0.0", "--variant")
    pw(*publish, f"onnx={DIGITS / '1.0.0'}")
    assert "published before" in pw(*publish, f"onnx={DIGITS / '1.0.0'}")
    line = pw.fails(*publish, f"onnx={DIGITS / '1.3.0'}")
    assert "already, with other content" in line
    same = ("publish", model, "1.0", "--variant", f"onnx={DIGITS / '1.0.0'}")
    assert "1.0.0" in pw.fails(*same)  # 1.0 and 1.0.0 are one version


def test_a_file_that_the_server_lost_is_sent_by_publishing_again(
    pw: Operator, model: str, fleet_server: ServerProcess
) -> None:
    folder = _big_variant(pw.home / "kept", 5000, 7)
    publish = ("publish", model, "1.0.0", "--variant", f"onnx={folder}")
    pw(*publish)
    digest = hashlib.sha256((folder / "table.bin").read_bytes()).hexdigest()
    (blob,) = (fleet_server.data / "blobs").rglob(digest)
    blob.unlink()
    assert "the server lacked 5.0 kB, which were sent again" in pw(*publish)
    assert blob.read_bytes() == (folder / "table.bin").read_bytes()
    assert "sent again" not in pw(*publish)


def test_blobs_that_the_server_has_are_not_sent_again(pw: Operator, model: str, name: str) -> None:
    pw("models", "create", name, "--publisher", pw.keys / "publisher.pem")
    (pw.home / "extra").mkdir()
    shutil.copy(DIGITS / "1.1.0" / "model.onnx", pw.home / "extra")
    (pw.home / "extra" / "labels.txt").write_text(f"labels of {name}\n")
    first = pw.json("publish", model, "1.0.0", "--variant", "onnx=extra")
    assert first["bytes_sent"] >= (pw.home / "extra" / "labels.txt").stat().st_size
    (pw.home / "extra" / "labels.txt").write_text("other\n")
    second = pw.json("publish", name, "1.0.0", "--variant", "onnx=extra")
    assert second["bytes_sent"] == len("other\n")


def _big_variant(folder: Path, size: int, seed: int) -> Path:
    folder.mkdir()
    shutil.copy(MODELS / "mlp.onnx", folder)
    (folder / "table.bin").write_bytes(random.Random(seed).randbytes(size))
    return folder


def test_a_broken_upload_goes_on_where_it_stopped(pw: Operator, model: str) -> None:
    size = 12 << 20
    folder = _big_variant(pw.home / "big", size, 1)
    with cutting_proxy(pw.url, [3 << 20, 4 << 20, 2 << 20]) as link:
        thin = pw.but(url=link.url)
        thin("publish", model, "1.0.0", "--variant", f"onnx={folder}")
        assert link.broken == 3
        # what a cut loses is in flight: socket buffers on the way, not the whole file again
        assert link.sent < size * 1.7
    files = pw.json("versions", "show", model, "1.0.0")["variants"][0]["files"]
    digest = hashlib.sha256((folder / "table.bin").read_bytes()).hexdigest()
    assert digest in {f["sha256"] for f in files}


def test_an_upload_survives_a_server_that_is_killed_and_comes_back(
    server_factory: Any, tmp_path: Path
) -> None:
    server: ServerProcess = server_factory(tmp_path / "own")
    pw = Operator(tmp_path, server.url, server.admin_token, tmp_path / "keys")
    pw("keys", "init", "--plain")
    pw("models", "create", "detector", "--publisher", pw.keys / "publisher.pem")
    folder = _big_variant(tmp_path / "big", 48 << 20, 2)
    before = {k: v for k, v in os.environ.items() if not k.startswith("PILOTWAVE_")}
    publish = subprocess.Popen(
        [
            *(sys.executable, "-m", "pilotwave_cli.main", "publish", "detector", "1.0.0"),
            *("--variant", f"onnx={folder}"),
        ],
        env={
            **before,
            "PILOTWAVE_URL": pw.url,
            "PILOTWAVE_TOKEN": pw.token,
            "PILOTWAVE_KEYS": str(pw.keys),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    blobs = server.data / "blobs"
    deadline = time.monotonic() + 60
    while publish.poll() is None and time.monotonic() < deadline:
        if sum(f.stat().st_size for f in blobs.rglob("*") if f.is_file()) > 4 << 20:
            break
        time.sleep(0.01)
    assert publish.poll() is None
    server.kill()
    server.start()
    out, err = publish.communicate(timeout=90)
    assert publish.returncode == 0, out + err
    assert "published detector 1.0.0" in out
    assert pw.json("versions", "list", "detector")[0]["version"] == "1.0.0"


def test_two_publishers_at_the_same_moment_both_get_through(pw: Operator, model: str) -> None:
    said: list[str] = []

    def publish(number: int) -> None:
        said.append(pw("publish", model, f"1.0.{number}", "--variant", f"o={DIGITS / '1.0.0'}"))

    threads = [threading.Thread(target=publish, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(said) == 4
    rows = pw.json("versions", "list", model)
    assert {row["version"] for row in rows} == {f"1.0.{n}" for n in range(4)}
    assert sorted(row["counter"] for row in rows) == [1, 2, 3, 4]


def test_nothing_is_sent_for_a_version_that_would_be_refused(
    pw: Operator, model: str, name: str
) -> None:
    folder = _big_variant(pw.home / "v", 1000, 3)
    pw("publish", model, "1.0.0", "--variant", f"onnx={DIGITS / '1.0.0'}")
    digest = hashlib.sha256((folder / "table.bin").read_bytes()).hexdigest()
    publish = ("publish", model, "1.0.0", "--variant", f"onnx={folder}")
    assert "other content" in pw.fails_with_warning(*publish)
    assert f"root-1.pem: not the publisher key of {model}" in pw.fails_with_warning(
        "publish", model, "2.0.0", "--variant", f"onnx={folder}", "--key", pw.keys / "root-1.pem"
    )
    assert "there is no model" in pw.fails_with_warning(
        "publish", name, "1.0.0", "--variant", f"onnx={folder}"
    )
    state = httpx.get(
        f"{pw.url}/api/v1/blobs/{digest}/upload",
        headers={"Authorization": f"Bearer {pw.token}"},
        timeout=30,
    ).json()
    assert state == {"offset": 0, "complete": False}


def test_the_yank_of_a_version_is_signed_and_final(pw: Operator, model: str) -> None:
    pw("publish", model, "1.0.0", "--variant", f"onnx={DIGITS / '1.0.0'}")
    assert "no version 3.0.0" in pw.fails(
        "versions", "yank", "--yes", model, "3.0.0", "--reason", "x"
    )
    pw("versions", "yank", "--yes", model, "1.0.0", "--reason", "leaks [red]data[/red]")
    assert "already yanked" in pw.fails(
        "versions", "yank", "--yes", model, "1.0.0", "--reason", "x"
    )
    (row,) = pw.json("versions", "list", model)
    assert row["yanked"]["reason"] == "leaks [red]data[/red]"
    assert "leaks [red]data[/red]" in pw("versions", "list", model)
    pw("versions", "undeny", model, "1.0.0")
    assert pw.json("versions", "list", model)[0]["yanked"] is not None


def test_the_oldest_version_is_signed_and_older_ones_leave_the_list(
    pw: Operator, model: str
) -> None:
    for version in ("1.0.0", "1.1.0"):
        pw("publish", model, version, "--variant", f"onnx={DIGITS / version}")
    asked = pw.run("versions", "floor", model, "1.1.0", "--prune", stdin="n\n")
    assert asked.returncode == 2
    assert "refuses all versions" in asked.stderr
    assert "use --yes" in asked.stderr
    assert pw.json("models", "show", model)["floor"] == 0
    assert "no version 3.0.0" in pw.fails("versions", "floor", model, "3.0.0", "--yes")
    pw("versions", "floor", model, "1.1.0", "--prune", "--yes")
    assert "already" in pw.fails("versions", "floor", model, "1.1.0", "--yes")
    assert pw.json("models", "show", model)["floor"] == 2


def test_a_denial_can_be_taken_back(pw: Operator, model: str) -> None:
    pw("publish", model, "1.0.0", "--variant", f"onnx={DIGITS / '1.0.0'}")
    pw("versions", "deny", "--yes", model, "1.0.0", "--reason", "drops frames")
    assert pw.json("versions", "list", model)[0]["denied"]["reason"] == "drops frames"
    assert "drops frames" in pw("versions", "show", model, "1.0.0")
    assert pw.json("models", "show", model)["latest"] is None
    pw("versions", "undeny", model, "1.0.0")
    assert pw.json("models", "show", model)["latest"] == "1.0.0"
    assert "has no version 9.9.9" in pw.fails(
        "versions", "deny", "--yes", model, "9.9.9", "--reason", "x"
    )


def test_a_version_of_two_publishers_travels_between_them(
    pw: Operator, name: str, tmp_path: Path
) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    for folder in (first, second):
        folder.mkdir()
        generate_key(folder / "publisher.pem")
    pw(
        *("models", "create", name, "--threshold", 2),
        *("--publisher", first / "publisher.pem", "--publisher", second / "publisher.pem"),
    )
    publish = (
        *("publish", name, "1.0.0", "--variant", f"onnx={DIGITS / '1.0.0'}"),
        *("--key", first / "publisher.pem"),
    )
    assert "--out FILE" in pw.fails(*publish)
    assert "waits for signatures" in pw(*publish, "--out", "draft.json")
    assert pw.json("versions", "list", name) == []
    assert "lacks 1 signature" in pw.fails("keys", "submit", "draft.json")
    assert "none of these keys" in pw.fails(
        "keys", "sign", "draft.json", "--key", pw.keys / "root-1.pem", status=2
    )
    said = pw("keys", "sign", "draft.json", "--key", second / "publisher.pem")
    assert f"models-{name} 2" in said
    pw("keys", "submit", "draft.json")
    assert pw.json("versions", "show", name, "1.0.0")["version"] == "1.0.0"


def _cases(header: dict[str, Any]) -> bytes:
    raw = json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ({"x": ("F32", [2, 64])}, r"input.<name> and output.<name> only"),
        ({"input.y": ("F32", [2, 64]), "output.probs": ("F32", [2, 10])}, "disagree on the input"),
        ({"input.x": ("F64", [2, 64]), "output.probs": ("F32", [2, 10])}, "the model has float32"),
        ({"input.x": ("F32", [2, 65]), "output.probs": ("F32", [2, 10])}, "input x is float32"),
        ({"input.x": ("F32", [2, 64]), "output.z": ("F32", [2, 10])}, "no output z"),
        ({"input.x": ("F32", [2, 64]), "output.probs": ("F32", [3, 10])}, "same number of cases"),
    ],
)
def test_golden_cases_that_fit_no_model_are_not_published(
    pw: Operator, model: str, header: dict[str, Any], said: str
) -> None:
    (pw.home / "v").mkdir()
    shutil.copy(DIGITS / "1.0.0" / "model.onnx", pw.home / "v")
    entries = {
        name: {"dtype": dtype, "shape": shape, "data_offsets": [0, 0]}
        for name, (dtype, shape) in header.items()
    }
    (pw.home / "v" / "selftest.safetensors").write_bytes(_cases(entries))
    line = pw.fails("publish", model, "1.0.0", "--variant", "onnx=v", status=2)
    assert said in line


def test_a_version_near_another_is_rounded_checked_and_said(pw: Operator, model: str) -> None:
    pw("publish", model, "1.0.0", "--variant", f"onnx={DIGITS / '1.0.0'}")
    near = ("--variant", f"onnx={DIGITS / '1.1.0'}", "--near", "1.0.0")
    said = pw("publish", model, "1.1.0", *near, "--near-check", "test -f model.onnx -o -d")
    assert "tensors rounded" in said
    assert "outputs on the golden inputs moved by" in said
    assert f"published {model} 1.1.0" in said
    files = pw.json("versions", "show", model, "1.1.0")["variants"][0]["files"]
    plain = hashlib.sha256((DIGITS / "1.1.0" / "model.onnx").read_bytes()).hexdigest()
    assert plain not in {f["sha256"] for f in files}
    assert "fails its golden inputs" in pw.fails("publish", model, "1.2.0", *near, "--quantum", "4")
    assert "false says no" in pw.fails("publish", model, "1.2.0", *near, "--near-check", "false")
    assert "has no variant other" in pw.fails(
        *("publish", model, "1.2.0", "--variant", f"other={DIGITS / '1.1.0'}", "--near", "1.0.0"),
        status=2,
    )
    words = ("publish", model, "1.2.0", *near, "--quantum", "-1")
    assert "expected auto" in pw.fails(*words, status=2)
