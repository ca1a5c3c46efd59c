"""What goes wrong with a bucket, in sentences that say what to do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from obstore.exceptions import BaseError

from pilotwave_server.blobs.port import StoreBroken

GONE = (FileNotFoundError,)
"""What obstore raises for an object that is not there: not one of its own errors."""
_CODE = re.compile(r"<Code>(\w{1,64})</Code>")
_STATUS = re.compile(r"status code: (\d{3})")
_NO_BUCKET = {"NoSuchBucket", "ContainerNotFound", "ContainerBeingDeleted"}
_ADDRESS = re.compile(r"\S*://\S+")
_CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or the machine's role)",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY (or the machine's identity)",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS (or the machine's service account)",
}
_ENDPOINT = {"s3": "AWS_ENDPOINT_URL", "az": "AZURE_STORAGE_ENDPOINT", "gs": "the network"}


@contextmanager
def as_store_error(name: str) -> Iterator[None]:
    """Turn what obstore raises into StoreBroken. `name` is the bucket's, as `s3://models/fleet`."""
    try:
        yield
    except (BaseError, *GONE) as error:
        raise StoreBroken(sentence(name, str(error))) from error


def sentence(name: str, said: str) -> str:
    """What is wrong, and what to do, from the text of an error."""
    scheme = name.partition(":")[0]
    code = found[1] if (found := _CODE.search(said)) else ""
    status = found[1] if (found := _STATUS.search(said)) else ""
    if code in _NO_BUCKET:
        return f"{name}: there is no such bucket; create it, or correct PILOTWAVE_BLOBS"
    if status in ("401", "403") or "credential" in said.lower():
        return (
            f"{name}: the store refuses this server ({code or status or 'no credentials'}); "
            f"expected {_CREDENTIALS[scheme]} of one who may list, read, write and delete there"
        )
    if status:
        return f"{name}: the store answered with status {status} {code}".rstrip()
    # an address may hold a signature
    last = _ADDRESS.sub("…", said.split("\n", 1)[0])[-160:]
    return f"{name}: the store does not answer; check {_ENDPOINT[scheme]} and the network ({last})"
