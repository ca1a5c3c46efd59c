"""Ordinary folders publish: snapshots that are links, names that are for people."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from pilotwave_cli.errors import CliError
from pilotwave_cli.publish.lay_out import laid_out, plain_name
from pilotwave_protocol.names import check_file_path
from tests.cli.conftest import DIGITS
from tests.cli.operator import Operator


def external(folder: Path, name: str) -> None:
    """A model whose weights lie in a file of that name beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    w = np.arange(12, dtype=np.float32).reshape(4, 3)
    ports = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", k])
        for n, k in (("x", 4), ("y", 3))
    ]
    product = helper.make_node("MatMul", ["x", "w"], ["y"])
    weights = [numpy_helper.from_array(w, "w")]
    graph = helper.make_graph([product], "g", ports[:1], ports[1:], weights)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(
        made,
        folder / "model.onnx",
        save_as_external_data=True,
        location=name,
        size_threshold=0,
    )


def snapshot(root: Path) -> Path:
    """The digits model as the Hugging Face cache keeps it."""
    repo = root / "hub" / "models--acme--digits"
    blobs, here = repo / "blobs", repo / "snapshots" / "0a1b2c"
    blobs.mkdir(parents=True)
    here.mkdir(parents=True)
    for number, file in enumerate(sorted((DIGITS / "1.0.0").iterdir())):
        (blobs / f"{number:064x}").write_bytes(file.read_bytes())
        (here / file.name).symlink_to(Path("../../blobs") / f"{number:064x}")
    (blobs / "ff").write_text("*.onnx filter=lfs")
    (here / ".gitattributes").symlink_to(Path("../../blobs/ff"))
    return here


def listed(pw: Operator, model: str) -> list[str]:
    found = pw.json("versions", "show", model, "1.0.0")
    return sorted(f["path"] for v in found["variants"] for f in v["files"])


def test_a_snapshot_of_links_is_published(pw: Operator, model: str, tmp_path: Path) -> None:
    pw("publish", model, "1.0.0", "--variant", f"onnx={snapshot(tmp_path)}", "--yes")
    assert listed(pw, model) == sorted(f.name for f in (DIGITS / "1.0.0").iterdir())


def test_one_file_of_a_snapshot_is_published(pw: Operator, model: str, tmp_path: Path) -> None:
    file = snapshot(tmp_path) / "model.onnx"
    pw("publish", model, "1.0.0", "--variant", f"onnx={file}", "--yes")
    assert listed(pw, model) == ["model.onnx"]


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("/etc/hostname", "links are followed to files within"),
        ("../../../outside.bin", "links are followed to files within"),
        ("../../blobs", "links are followed to files within"),
        ("loop", "leads nowhere"),
        ("../../blobs/missing", "leads nowhere"),
    ],
)
def test_a_link_that_leads_elsewhere_is_refused(tmp_path: Path, target: str, said: str) -> None:
    here = snapshot(tmp_path)
    (tmp_path / "hub" / "outside.bin").write_bytes(b"x")
    (here / "loop").symlink_to(target)
    with pytest.raises(CliError, match=said), laid_out({"v": here}):
        pass


def test_links_of_an_ordinary_folder_stay_inside_it(tmp_path: Path) -> None:
    folder = tmp_path / "v"
    folder.mkdir()
    (folder / "a.bin").write_bytes(b"a")
    (folder / "b.bin").symlink_to("a.bin")
    with laid_out({"v": folder}) as found:
        assert not (found["v"] / "b.bin").is_symlink()
        assert (found["v"] / "b.bin").read_bytes() == b"a"
    (tmp_path / "secret").write_bytes(b"s")
    (folder / "c.bin").symlink_to("../secret")
    with pytest.raises(CliError, match="links are followed"), laid_out({"v": folder}):
        pass


@pytest.mark.parametrize(
    "name", ["data file.bin", "größe.bin", "a:b.bin", "数据.bin", "x" * 130 + " y.bin", "w (1).bin"]
)
def test_external_data_under_any_printable_name_loads_here_and_is_published(
    pw: Operator, model: str, tmp_path: Path, name: str
) -> None:
    external(tmp_path / "v", name)
    said = pw.run("publish", model, "1.0.0", "--variant", f"onnx={tmp_path / 'v'}", "--yes")
    assert said.returncode == 0, said.stderr
    assert f"{name!r} is shipped as {plain_name(name)}" in " ".join(said.stderr.split())
    assert listed(pw, model) == sorted(["model.onnx", plain_name(name)])
    assert (tmp_path / "v" / name).exists(), "nothing is changed where it lies"
    assert onnx.load(tmp_path / "v" / "model.onnx")


def test_names_of_one_folder_that_would_be_one_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "v"
    folder.mkdir()
    for name in ("a b.bin", "a_b.bin"):
        (folder / name).write_bytes(b"x")
    with pytest.raises(CliError, match="would both be shipped"), laid_out({"v": folder}):
        pass


@pytest.mark.parametrize("name", ["a\u202eb.bin", "a\u200bb.bin", "a\nb.bin", "a\x07b.bin"])
def test_a_name_that_hides_what_it_is_is_refused(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "v"
    folder.mkdir()
    (folder / name).write_bytes(b"x")
    with pytest.raises(CliError, match="invisible characters"), laid_out({"v": folder}):
        pass


@given(
    st.text(st.characters(exclude_categories=["C", "Zl", "Zp"], exclude_characters="/"), min_size=1)
)
def test_a_plain_name_is_taken_by_every_agent_and_as_long(name: str) -> None:
    if name.startswith(".") or len(name.encode()) > 240:
        return
    made = plain_name(name)
    assert len(made) == len(name.encode())
    assert check_file_path(made) == made
    assert plain_name(made) == made


def test_a_folder_that_needs_nothing_is_used_as_it_lies(tmp_path: Path) -> None:
    with laid_out({"v": DIGITS / "1.0.0"}) as found:
        assert found["v"] == DIGITS / "1.0.0"


def test_a_pipe_is_no_file(pw: Operator, model: str, tmp_path: Path) -> None:
    folder = tmp_path / "v"
    folder.mkdir()
    os.mkfifo(folder / "pipe")
    assert "special file" in pw.fails(
        "publish", model, "1.0.0", "--variant", f"onnx={folder}", status=2
    )
