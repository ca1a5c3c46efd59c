"""The conformance seat, held against a simulated repository: TUF's client workflow, case by case.

Section numbers are those of the TUF specification 1.0.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from tuf.api.metadata import DelegatedRole, Metadata

from tests.conformance.repository import TOP, Repository, Server

pytestmark = pytest.mark.long

SEAT = Path(__file__).parent / "tuf-client"


class Client:
    """Runs the executable as a suite does."""

    def __init__(self, folder: Path, server: Server) -> None:
        self.metadata, self.targets = folder / "metadata", folder / "targets"
        self.metadata.mkdir()
        self.targets.mkdir()
        self.server, self.folder = server, folder
        root = folder / "initial.json"
        root.write_bytes(server.repository.served["metadata/1.root.json"])
        assert self.run("init", str(root)) == 0

    def run(self, *words: str, **environment: str) -> int:
        command = [str(SEAT), "--metadata-dir", str(self.metadata), *words]
        env = {**os.environ, **environment}
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=env)
        assert "Traceback" not in done.stderr, done.stderr
        return done.returncode

    def refresh(self, **environment: str) -> int:
        return self.run("--metadata-url", f"{self.server.url}/metadata", "refresh", **environment)

    def download(self, *names: str, **environment: str) -> int:
        asked = [word for name in names for word in ("--target-name", name)]
        return self.run(
            "--metadata-url",
            f"{self.server.url}/metadata/",
            *asked,
            "--target-dir",
            str(self.targets),
            "--target-base-url",
            f"{self.server.url}/targets",
            "download",
            **environment,
        )

    def version(self, role: str) -> int | None:
        path = self.metadata / f"{role}.json"
        return Metadata.from_bytes(path.read_bytes()).signed.version if path.exists() else None

    def got(self) -> list[bytes]:
        return sorted(p.read_bytes() for p in self.targets.iterdir())


@pytest.fixture
def repo() -> Repository:
    return Repository()


@pytest.fixture
def client(repo: Repository, tmp_path: Path) -> Iterator[Client]:
    server = Server(repo)
    yield Client(tmp_path, server)
    server.shutdown()
    server.server_close()


def test_init_makes_no_request_and_refresh_keeps_what_was_served(
    repo: Repository, client: Client
) -> None:
    assert repo.asked == []
    assert client.version("root") == 1
    assert client.refresh() == 0
    for role in TOP:
        served = repo.served[f"metadata/{'' if role == 'timestamp' else '1.'}{role}.json"]
        assert (client.metadata / f"{role}.json").read_bytes() == served
    wanted = ["2.root.json", "timestamp.json", "1.snapshot.json", "1.targets.json"]
    assert repo.asked == [f"metadata/{name}" for name in wanted]


def test_a_second_refresh_asks_for_little(repo: Repository, client: Client) -> None:
    client.refresh()
    repo.asked.clear()
    assert client.refresh() == 0
    assert repo.asked == ["metadata/2.root.json", "metadata/timestamp.json"]


def test_several_new_versions_are_followed(repo: Repository, client: Client) -> None:
    for _ in range(3):
        repo.publish("root", *TOP[1:])
        assert client.refresh() == 0
    assert [client.version(role) for role in TOP] == [4, 4, 4, 4]


def test_a_repository_without_consistent_snapshots_works(tmp_path: Path) -> None:
    repo = Repository(consistent=False)
    repo.add("a/file.txt", b"plain")
    repo.publish_all()
    server = Server(repo)
    client = Client(tmp_path, server)
    assert client.download("a/file.txt") == 0
    assert client.got() == [b"plain"]
    assert "metadata/snapshot.json" in repo.asked
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("kind", ["rsa", "ecdsa", "ed25519"])
def test_each_kind_of_key_works(tmp_path: Path, kind: str) -> None:
    server = Server(Repository(kind=kind))
    client = Client(tmp_path, server)
    assert client.refresh() == 0
    server.shutdown()
    server.server_close()


# --- 5.3: root ---------------------------------------------------------------------------------


def test_root_rotations_are_walked_one_by_one(repo: Repository, client: Client) -> None:
    for _ in range(3):
        old = list(repo.keys["root"])
        repo.rotate("root")
        repo.publish("root", signers=[*old, *repo.keys["root"]])
    assert client.refresh() == 0
    assert client.version("root") == 4


@pytest.mark.parametrize("which", ["only the old", "only the new"])
def test_a_root_needs_both_old_and_new_keys(repo: Repository, client: Client, which: str) -> None:
    old = list(repo.keys["root"])
    repo.rotate("root")
    repo.publish("root", signers=old if which == "only the old" else repo.keys["root"])
    assert client.refresh() == 1
    assert client.version("root") == 1


def test_a_root_that_skips_a_version_is_refused(repo: Repository, client: Client) -> None:
    repo.signed["root"].version = 2
    repo.publish("root")
    repo.served["metadata/2.root.json"] = repo.served.pop("metadata/3.root.json")
    assert client.refresh() == 1
    assert client.version("root") == 1


def test_an_expired_root_in_between_is_no_obstacle_but_the_last_is(
    repo: Repository, client: Client
) -> None:
    repo.signed["root"].expires = datetime(2025, 1, 1, tzinfo=timezone.utc)
    repo.publish("root")
    assert client.refresh() == 1
    assert client.version("root") == 2
    repo.signed["root"].expires = repo.ends
    repo.publish("root")
    assert client.refresh() == 0
    assert client.version("root") == 3


def test_a_threshold_counts_distinct_keys(repo: Repository, client: Client) -> None:
    signer = repo.keys["timestamp"][0]
    repo.signed["root"].roles["timestamp"].threshold = 2
    repo.give_key("timestamp")
    repo.publish("root")
    repo.publish("timestamp", signers=[signer])
    assert client.refresh() == 1
    repo.publish("timestamp")
    assert client.refresh() == 0


# --- 5.4 to 5.6: timestamp, snapshot, targets -----------------------------------------------------


@pytest.mark.parametrize("role", TOP[1:])
def test_a_role_signed_by_another_key_is_refused(
    repo: Repository, client: Client, role: str
) -> None:
    client.refresh()
    repo.publish(role, signers=repo.keys["root"])
    later = {"targets": ("snapshot", "timestamp"), "snapshot": ("timestamp",), "timestamp": ()}
    repo.publish(*later[role])
    assert client.refresh() == 1
    assert client.version(role) == 1


@pytest.mark.parametrize("role", TOP[1:])
def test_an_expired_role_is_refused(repo: Repository, client: Client, role: str) -> None:
    repo.signed[role].expires = datetime(2025, 1, 1, tzinfo=timezone.utc)
    repo.publish_all()
    assert client.refresh() == 1


def test_an_older_timestamp_is_refused(repo: Repository, client: Client) -> None:
    first = repo.served["metadata/timestamp.json"]
    repo.publish("timestamp")
    assert client.refresh() == 0
    repo.served["metadata/timestamp.json"] = first
    assert client.refresh() == 1
    assert client.version("timestamp") == 2


def test_an_older_timestamp_is_refused_even_when_the_cache_was_lost(
    repo: Repository, client: Client
) -> None:
    first = repo.served["metadata/timestamp.json"]
    repo.publish("timestamp")
    assert client.refresh() == 0
    repo.served["metadata/timestamp.json"] = first
    for role in TOP[1:]:
        (client.metadata / f"{role}.json").unlink()
    assert client.refresh() == 1


@pytest.mark.parametrize("role", ["snapshot", "targets"])
def test_a_lower_version_under_a_newer_timestamp_is_refused(
    repo: Repository, client: Client, role: str
) -> None:
    repo.publish_all()
    assert client.refresh() == 0
    repo.signed[role].version = 0
    repo.publish(role)
    if role == "targets":
        repo.publish("snapshot")
    repo.publish("timestamp")
    assert client.refresh() == 1
    assert client.version(role) == 2


def test_a_role_that_vanishes_from_the_snapshot_is_refused(
    repo: Repository, client: Client
) -> None:
    repo.delegate("targets", "extra", ["x/*"])
    repo.publish_all()
    assert client.refresh() == 0
    del repo.signed["snapshot"].meta["extra.json"]
    repo.publish("snapshot", "timestamp")
    assert client.refresh() == 1


@pytest.mark.parametrize("role", ["snapshot", "targets"])
def test_bytes_that_the_digest_above_does_not_name_are_refused(
    repo: Repository, client: Client, role: str
) -> None:
    repo.digests = True
    repo.publish_all()
    path = f"metadata/{repo.signed[role].version}.{role}.json"
    repo.served[path] = repo.served[path].replace(b"{", b"{ ", 1)
    assert client.refresh() == 1
    repo.served[path] = repo.served[path].replace(b"{ ", b"{", 1)
    assert client.refresh() == 0


def test_snapshot_and_timestamp_of_different_moments_are_refused(
    repo: Repository, client: Client
) -> None:
    repo.publish_all()
    repo.served["metadata/2.snapshot.json"] = repo.served["metadata/1.snapshot.json"]
    assert client.refresh() == 1


def test_rotating_the_online_keys_undoes_a_fast_forward(repo: Repository, client: Client) -> None:
    for role in ("snapshot", "timestamp"):
        repo.signed[role].version = 2**31
        repo.publish(role)
    assert client.refresh() == 0
    for role in ("snapshot", "timestamp"):
        repo.signed[role].version = 1
        repo.publish(role)
    assert client.refresh() == 1
    for role in ("snapshot", "timestamp"):
        repo.rotate(role)
    repo.publish("root", "snapshot", "timestamp")
    assert client.refresh() == 0
    assert client.version("timestamp") == 3


@pytest.mark.parametrize(("role", "held"), [("timestamp", "timestamp"), ("snapshot", "targets")])
def test_rotating_one_online_key_undoes_what_it_alone_vouched_for(
    repo: Repository, client: Client, role: str, held: str
) -> None:
    repo.signed[held].version = 99
    repo.publish(*TOP[1:])
    assert client.refresh() == 0
    assert client.version(held) == 100
    repo.rotate(role)
    repo.signed[held].version = 1
    repo.publish("root", *TOP[1:])
    assert client.refresh() == 0
    assert client.version(held) == 2


def test_unknown_fields_are_kept(repo: Repository, client: Client) -> None:
    repo.signed["targets"].unrecognized_fields["x-more"] = {"a": [1]}
    repo.publish_all()
    assert client.refresh() == 0
    served = repo.served["metadata/2.targets.json"]
    assert (client.metadata / "targets.json").read_bytes() == served


@pytest.mark.parametrize("data", [b"", b"{}", b"null", b"[" * 5000, b"\xff\xfe", b'{"signed": 1}'])
def test_garbage_is_refused_without_a_crash(repo: Repository, client: Client, data: bytes) -> None:
    repo.served["metadata/timestamp.json"] = data
    assert client.refresh() == 1


def test_the_clock_floor_can_be_raised_by_the_environment_alone(
    repo: Repository, client: Client
) -> None:
    late = (repo.ends + timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert client.refresh(PILOTWAVE_CONFORMANCE_CLOCK_FLOOR=late) == 1
    assert client.refresh(PILOTWAVE_CONFORMANCE_CLOCK_FLOOR="1970-01-01T00:00:00Z") == 0


# --- 5.6.7: delegations, artifacts ----------------------------------------------------------------


def test_delegations_are_searched_in_order_and_terminating_ones_end_it(
    repo: Repository, client: Client
) -> None:
    repo.delegate("targets", "first", ["a/*"])
    repo.delegate("targets", "second", ["a/*"], terminating=True)
    repo.delegate("targets", "third", ["a/*"])
    repo.add("a/two", b"two", "second")
    repo.add("a/three", b"three", "third")
    repo.publish("first", "second", "third")
    repo.publish_all()
    assert client.download("a/two") == 0
    assert client.download("a/three") == 1
    assert not any("third" in path for path in repo.asked)
    assert client.got() == [b"two"]


def test_a_role_cannot_speak_for_paths_that_were_not_given_to_it(
    repo: Repository, client: Client
) -> None:
    repo.delegate("targets", "mine", ["mine/*"])
    repo.add("yours/x", b"no", "mine")
    repo.publish("mine")
    repo.publish_all()
    assert client.download("yours/x") == 1
    assert client.got() == []


def test_an_expired_delegated_role_is_not_used(repo: Repository, client: Client) -> None:
    repo.delegate("targets", "late", ["a/*"])
    repo.signed["late"].expires = datetime.now(timezone.utc) - timedelta(days=1)
    repo.add("a/x", b"x", "late")
    repo.publish("late")
    repo.publish_all()
    assert client.refresh() == 0
    assert client.download("a/x") == 1
    assert (client.got(), client.version("late")) == ([], None)


def test_a_delegated_role_that_was_good_is_not_used_after_its_end(
    repo: Repository, client: Client
) -> None:
    repo.delegate("targets", "short", ["a/*"])
    repo.signed["short"].expires = repo.ends - timedelta(days=20)
    repo.add("a/one", b"1", "short")
    repo.add("a/two", b"2", "short")
    repo.publish("short")
    repo.publish_all()
    assert client.download("a/one") == 0
    later = (repo.ends - timedelta(days=10)).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert client.download("a/two", PILOTWAVE_CONFORMANCE_CLOCK_FLOOR=later) == 1
    assert client.got() == [b"1"]
    repo.signed["short"].expires = repo.ends
    repo.publish("short")
    repo.publish("snapshot", "timestamp")
    assert client.download("a/two", PILOTWAVE_CONFORMANCE_CLOCK_FLOOR=later) == 0
    assert client.got() == [b"1", b"2"]


def test_cycles_of_delegations_end(repo: Repository, client: Client) -> None:
    repo.delegate("targets", "one", ["*"])
    repo.delegate("one", "two", ["*"])
    held = repo.signed["two"]
    repo.delegate("two", "three", ["*"])
    back = DelegatedRole("one", [], 1, False, paths=["*"])
    held.delegations.roles["one"] = back
    held.add_key(repo.keys["one"][0].public_key, "one")
    repo.publish("one", "two", "three")
    repo.publish_all()
    assert client.download("nowhere") == 1


@pytest.mark.parametrize("name", [".", "..", "../x", "a b", "ä", "a?b", "a#b", "a%2fb"])
def test_odd_role_names_stay_inside_the_folder(repo: Repository, client: Client, name: str) -> None:
    repo.delegate("targets", name, ["*"])
    repo.publish_all()
    before = {p for p in client.folder.rglob("*") if not p.is_relative_to(client.metadata)}
    client.download("missing")
    after = {p for p in client.folder.rglob("*") if not p.is_relative_to(client.metadata)}
    assert after == before


def test_hash_bins_are_followed(repo: Repository, client: Client) -> None:
    bins = repo.hash_bins(3)
    succinct = repo.signed["targets"].delegations.succinct_roles
    owner = succinct.get_role_for_target("some/file")
    repo.add("some/file", b"binned", owner)
    repo.publish(*bins, bump=False)
    repo.publish_all()
    assert client.download("some/file") == 0
    assert client.got() == [b"binned"]


def test_several_targets_come_in_one_call_and_are_not_fetched_twice(
    repo: Repository, client: Client
) -> None:
    repo.add("a.txt", b"a")
    repo.add("b/c.txt", b"c")
    repo.publish_all()
    assert client.download("a.txt", "b/c.txt") == 0
    assert client.got() == [b"a", b"c"]
    repo.asked.clear()
    assert client.download("a.txt", "b/c.txt") == 0
    assert not any(path.startswith("targets/") for path in repo.asked)


def test_a_target_without_the_hash_prefix_is_found_too(repo: Repository, client: Client) -> None:
    repo.add("a.txt", b"a", prefix=False)
    repo.publish_all()
    assert client.download("a.txt") == 0
    assert client.got() == [b"a"]


@pytest.mark.parametrize("lie", [b"other", b"longer than it should be", b""])
def test_a_target_with_other_bytes_is_refused_and_the_old_one_stays(
    repo: Repository, client: Client, lie: bytes
) -> None:
    repo.add("a.txt", b"first")
    repo.publish_all()
    assert client.download("a.txt") == 0
    repo.add("a.txt", b"other"[::-1])
    repo.publish_all()
    for path in repo.served:
        if path.startswith("targets/"):
            repo.served[path] = lie
    assert client.download("a.txt") == 1
    assert client.got() == [b"first"]


@pytest.mark.parametrize("name", ["../up", "a/../../up", "/abs", "a b", "ü/x", "x" * 300, "a%2f.."])
def test_odd_target_names_stay_inside_the_folder(
    repo: Repository, client: Client, name: str
) -> None:
    repo.add(name, b"odd")
    repo.publish_all()
    before = {p for p in client.folder.rglob("*") if not p.is_relative_to(client.metadata)}
    status = client.download(name)
    after = {p for p in client.folder.rglob("*") if not p.is_relative_to(client.metadata)}
    assert all(p.parent == client.targets for p in after - before)
    assert client.got() == ([b"odd"] if status == 0 else [])
