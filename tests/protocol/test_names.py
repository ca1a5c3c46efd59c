"""Names, versions and paths: what passes, what does not, and how versions order."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotwave_protocol import names
from pilotwave_protocol.errors import BadName

ODD = ["", ".", "..", "a/b", "a\\b", "A", "a b", "a..b", "-a", "a-", "a\n", "a\0", "é", "a*", "[a]"]


@pytest.mark.parametrize("name", ["detector", "ocr.small", "lane-keeper", "a1", "cam_017"])
def test_plain_names_pass(name: str) -> None:
    assert names.check_model(name) == names.check_device(name) == names.check_group(name) == name


@pytest.mark.parametrize("name", [*ODD, "x" * 65, 7, None, ["a"]])
def test_odd_names_are_refused(name: object) -> None:
    for check in (names.check_model, names.check_device, names.check_group, names.check_variant):
        with pytest.raises(BadName, match="expected"):
            check(name)


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",  # absolute
        "../x",  # climbs out
        "a/../b",
        "a//b",  # an empty component
        "a/",
        "./a",
        ".hidden",  # hidden files are never shipped
        "a/.b",
        "a\\b",  # a separator elsewhere
        "C:x",  # a drive elsewhere
        "a b",
        "a\nb",
        "a\0b",
        "x" * 241,
        "/".join("abcdefghi"),  # nine deep
        "a.",  # two names for one file on some systems
        "-rf",  # an option to a tool
        "‮a",  # turns the text around on screen
    ],
)
def test_paths_that_could_leave_the_folder_are_refused(path: str) -> None:
    with pytest.raises(BadName):
        names.check_file_path(path)


def test_usual_model_files_pass() -> None:
    for path in (
        "model.onnx",
        "saved_model/variables/variables.data-00000-of-00001",
        "a+b@1=x.bin",
    ):
        assert names.check_file_path(path) == path


@given(st.text(max_size=40))
def test_an_accepted_path_stays_inside_its_folder(path: str) -> None:
    try:
        names.check_file_path(path)
    except BadName:
        return
    assert not path.startswith("/")
    assert all(part and part not in {".", ".."} for part in path.split("/"))
    assert path.isascii()
    assert path.isprintable()


IN_ORDER = [
    "0.9",
    "1.0.0.dev1",
    "1.0.0-alpha",
    "1.0.0-alpha.1",
    "1.0.0a2",
    "1.0.0-beta",
    "1.0.0rc1",
    "1.0.0-rc.2",
    "1.0",
    "1.0.0+cu12",
    "1.0.post1",
    "1.2.0",
    "1.10.0",
    "2.0.0-x.7.z.92",
    "2.0.0",
]


def test_versions_of_both_spellings_have_one_order() -> None:
    keys = [names.version_key(v) for v in IN_ORDER]
    for (a, x), (b, y) in itertools.combinations(zip(IN_ORDER, keys, strict=True), 2):
        assert x < y, f"{a} < {b}"


@pytest.mark.parametrize(
    ("one", "other"), [("1.0", "1.0.0"), ("1.0.0rc1", "1.0.0-rc.1"), ("1.0.0a1", "1.0.0-alpha.1")]
)
def test_two_spellings_of_one_version_are_equal(one: str, other: str) -> None:
    assert names.version_key(one) == names.version_key(other)


@pytest.mark.parametrize(
    "version", ["", "latest", "1!2.0", "1.0/2", "..", "1.0 ", "v" * 65, "1_0/x"]
)
def test_what_is_no_version_is_refused(version: str) -> None:
    with pytest.raises(BadName):
        names.check_version(version)


@given(st.text(alphabet="0123456789.-+abrcdevpost", min_size=1, max_size=20))
def test_every_accepted_version_can_be_ordered_and_named_in_a_path(version: str) -> None:
    try:
        names.check_version(version)
    except BadName:
        return
    assert names.version_key(version) == names.version_key(version)
    path = names.target_path("detector", version)
    assert names.parse_target_path(path) == ("detector", version)


def test_target_paths_of_other_forms_are_refused() -> None:
    for path in ("models/a/_policy", "models/a/b/1.0.json", "x/a/1.0.json", "models/../1.0.json"):
        with pytest.raises(BadName):
            names.parse_target_path(path)


def test_roles_and_models_name_each_other() -> None:
    assert names.model_of_role(names.role_for_model("detector")) == "detector"
    with pytest.raises(BadName):
        names.model_of_role("targets")


@pytest.mark.parametrize(
    ("reported", "version", "same"),
    [
        ("0.2.0+3f2a9c1e", "0.2.0+3f2a9c1e", True),
        ("0.2.0+3f2a9c1e", "0.2.0", True),
        ("0.2.0+3f2a9c1e", "0.2", True),
        ("0.2.0+12345678", "0.2.0+12345678", True),
        ("0.2.0+3f2a9c1e", "0.2.0+3f2a9c1f", False),
        ("0.2.0", "0.2.0+3f2a9c1e", False),
        ("0.2.1+3f2a9c1e", "0.2.0", False),
        ("unknown+3f2a9c1e", "0.2.0", False),
        ("", "0.2.0", False),
    ],
)
def test_an_agent_is_the_version_that_it_reports(reported: str, version: str, same: bool) -> None:
    assert names.is_version_of_agent(reported, version) is same
