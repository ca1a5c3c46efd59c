"""Deflated archives are stored anew before they are published; bad ones are refused."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from pilotwave_cli.errors import CliError
from pilotwave_cli.publish.unpack_archives import restored, store_anew
from tests.deltas.pairs import made, tuned, weights

OLD = weights(60_000, 1, "float32")
NEW = tuned(OLD, 2, 1e-4)


def npz(path: Path, values: np.ndarray) -> Path:  # type: ignore[type-arg]  # of any kind
    np.savez_compressed(path, a=values, b=np.arange(10))
    return path


def tar_gz(path: Path, **files: bytes) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name.replace("__", "/"))
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return path


def stored(path: Path) -> Path:
    target = path.with_name(f"stored-{path.name}")
    assert store_anew(path, target)
    return target


def part_of_new(old: Path, new: Path, folder: Path) -> float:
    _, delta = made(folder, old.read_bytes(), new.read_bytes())
    return len(delta) / new.stat().st_size


def test_an_npz_reads_the_same_and_its_delta_is_that_of_its_weights(tmp_path: Path) -> None:
    old, new = npz(tmp_path / "old.npz", OLD), npz(tmp_path / "new.npz", NEW)
    assert part_of_new(old, new, tmp_path) > 0.95
    found = np.load(stored(new))
    assert (found["a"] == NEW).all()
    assert found["b"].tolist() == list(range(10))
    assert part_of_new(stored(old), stored(new), tmp_path) < 0.75


def test_a_tar_gz_reads_the_same_and_its_delta_is_small(tmp_path: Path) -> None:
    old = tar_gz(tmp_path / "old.tar.gz", w=OLD.tobytes())
    new = tar_gz(tmp_path / "new.tar.gz", w=NEW.tobytes())
    with tarfile.open(stored(new)) as archive:
        file = archive.extractfile("w")
        assert file is not None
        assert file.read() == NEW.tobytes()
    assert part_of_new(stored(old), stored(new), tmp_path) < 0.75


def test_storing_anew_gives_the_same_bytes_each_time_and_leaves_what_is_stored(
    tmp_path: Path,
) -> None:
    for path in (npz(tmp_path / "x.npz", OLD), tar_gz(tmp_path / "x.tar.gz", w=bytes(10_000))):
        first = stored(path)
        assert stored(path).read_bytes() == first.read_bytes()
        assert not store_anew(first, tmp_path / "again")


@pytest.mark.parametrize("data", [b"", b"PK", b"no archive", OLD.tobytes(), b"TFL3PK\x03\x04"])
def test_other_files_are_left(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(data)
    assert not store_anew(path, tmp_path / "out")


def test_folders_and_files_come_with_their_other_files(tmp_path: Path) -> None:
    folder = tmp_path / "build"
    (folder / "inner").mkdir(parents=True)
    (folder / "labels.txt").write_text("cat")
    npz(folder / "inner" / "w.npz", OLD)
    alone, plain = npz(tmp_path / "alone.npz", NEW), tmp_path / "plain.bin"
    plain.write_bytes(b"weights")
    sources = {"f": folder, "a": alone, "p": plain, "gone": tmp_path / "gone"}
    with restored(sources) as found:
        assert (found["f"] / "labels.txt").read_text() == "cat"
        assert (found["f"] / "inner" / "w.npz").stat().st_size > OLD.nbytes
        assert found["a"].name == "alone.npz"
        assert found["p"] is plain
        assert found["gone"] == tmp_path / "gone"  # what is wrong with it is said elsewhere
    assert sorted(p.name for p in folder.rglob("*")) == ["inner", "labels.txt", "w.npz"]


def deflated(path: Path, *names: str) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            archive.writestr(zipfile.ZipInfo(name), bytes(1000), zipfile.ZIP_DEFLATED)
    return path


OUTSIDE = ["../up", "a/../../up", "/root", "c:/windows", "a\\..\\..\\up"]


@pytest.mark.parametrize("name", OUTSIDE)
def test_names_that_lead_out_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(CliError, match="leads out"):
        store_anew(deflated(tmp_path / "x.zip", "good", name), tmp_path / "out")


def test_a_tar_gz_that_leads_out_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CliError, match="leads out"):
        store_anew(tar_gz(tmp_path / "x.tar.gz", **{"..__up": bytes(9999)}), tmp_path / "out")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_comes_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CliError, match="comes twice"):
        store_anew(deflated(tmp_path / "x.zip", "a", "a"), tmp_path / "out")


def test_a_bomb_is_refused_before_it_goes_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pilotwave_cli.publish.unpack_archives.LARGEST", 5000)
    six = deflated(tmp_path / "x.zip", *"abcdef")
    with pytest.raises(CliError, match="expected up to"):
        store_anew(six, tmp_path / "out")
    packed = tmp_path / "x.gz"
    packed.write_bytes(gzip.compress(bytes(10**7)))
    with pytest.raises(CliError, match="more than the 5000"):
        store_anew(packed, tmp_path / "out")
    assert (tmp_path / "out").stat().st_size < 100_000


def test_members_that_share_their_bytes_are_refused(tmp_path: Path) -> None:
    """A bomb of overlapping members: each names the first one's bytes."""
    data = bytearray(deflated(tmp_path / "x.zip", "a", "b").read_bytes())
    last = data.rfind(b"PK\x01\x02")
    data[last + 42 : last + 46] = bytes(4)
    bad = tmp_path / "bad.zip"
    bad.write_bytes(bytes(data))
    with pytest.raises(CliError, match="lie over each other"):
        store_anew(bad, tmp_path / "out")


def test_a_damaged_archive_is_refused(tmp_path: Path) -> None:
    for path in (npz(tmp_path / "x.npz", OLD), tar_gz(tmp_path / "x.tar.gz", w=OLD.tobytes())):
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 0x55
        for bad in (bytes(data), bytes(data[:-100])):
            path.write_bytes(bad)
            with pytest.raises(CliError, match="cannot be read"):
                store_anew(path, tmp_path / "out")
