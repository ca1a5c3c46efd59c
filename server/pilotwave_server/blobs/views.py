"""Requests and answers about blobs."""

from __future__ import annotations

from pydantic import Field

from pilotwave_protocol.manifest import MAX_FILE_SIZE
from pilotwave_server.fields import ApiReply, ApiRequest, Sha256


class WantedBlob(ApiRequest):
    sha256: Sha256
    size: int = Field(ge=0, le=MAX_FILE_SIZE, description="Size in bytes.")


class MissingRequest(ApiRequest):
    blobs: list[WantedBlob] = Field(max_length=4096, description="What a version consists of.")


class MissingBlob(ApiReply):
    sha256: str
    offset: int = Field(description="How many bytes of it are here already.")


class MissingView(ApiReply):
    missing: list[MissingBlob] = Field(description="What is still to be sent, in the order asked.")


class UploadView(ApiReply):
    offset: int = Field(description="The number of the next byte to send.")
    complete: bool = Field(description="Whether the blob is whole, verified and stored.")
