"""S3 servers for the tests: moto, which is quick, and radosgw, which is one that people run.

moto checks no signature and no secret; what rests on those is tested with radosgw alone.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import boto3
from botocore.config import Config

from tests.radosgw import end_with_parent, running_radosgw

ACCESS, SECRET = "test-access", "test-secret"


@dataclass(frozen=True)
class S3Server:
    """An S3 server at `url`, and what a program needs in its environment to use it."""

    url: str

    @property
    def environment(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": ACCESS,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
        }

    def client(self) -> Any:
        return boto3.client(
            "s3",
            endpoint_url=self.url,
            aws_access_key_id=ACCESS,
            aws_secret_access_key=SECRET,
            region_name="us-east-1",
            config=Config(s3={"addressing_style": "path"}),
        )

    def bucket(self) -> Bucket:
        """A new bucket."""
        bucket = Bucket(self, f"b-{secrets.token_hex(6)}")
        bucket.client.create_bucket(Bucket=bucket.name)
        return bucket


@dataclass(frozen=True)
class Bucket:
    """A bucket; a server's blobs are under its prefix `fleet`."""

    server: S3Server
    name: str
    client: Any = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "client", self.server.client())

    @property
    def url(self) -> str:
        return f"s3://{self.name}/fleet"

    def keys(self, folder: str = "") -> list[str]:
        found = self.client.list_objects_v2(Bucket=self.name, Prefix=f"fleet/{folder}")
        return [item["Key"] for item in found.get("Contents", [])]

    def unfinished(self) -> list[str]:
        """The objects that were begun in parts and are not whole."""
        found = self.client.list_multipart_uploads(Bucket=self.name)
        return [item["Key"] for item in found.get("Uploads", [])]


@contextlib.contextmanager
def running_moto() -> Iterator[S3Server]:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, "AWS_ACCESS_KEY_ID": ACCESS, "AWS_SECRET_ACCESS_KEY": SECRET},
            preexec_fn=end_with_parent,
        )
        try:
            end = time.monotonic() + 60
            while not _listens(port):
                assert process.poll() is None, "moto ended"
                assert time.monotonic() < end, "moto does not listen"
                time.sleep(0.05)
            yield S3Server(f"http://127.0.0.1:{port}")
        finally:
            process.kill()
            process.wait(20)


@contextlib.contextmanager
def running_ceph() -> Iterator[S3Server]:
    with running_radosgw(ACCESS, SECRET) as url:
        yield S3Server(url)


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False
