"""Requests and answers about blobs."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from pilotwave_protocol.manifest import MAX_FILE_SIZE
from pilotwave_protocol.names import check_sha256

Sha256 = Annotated[
    str,
    AfterValidator(check_sha256),
    Field(pattern="^[0-9a-f]{64}$", description="SHA-256 of the bytes, 64 hex digits."),
]


class WantedBlob(BaseModel):
    model_config = ConfigDict(extra="forbid")

    sha256: Sha256
    size: int = Field(ge=0, le=MAX_FILE_SIZE, description="Size in bytes.")


class MissingRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    blobs: list[WantedBlob] = Field(max_length=4096, description="What a version consists of.")


class MissingBlob(BaseModel):
    sha256: str
    offset: int = Field(description="How many bytes of it are here already.")


class MissingView(BaseModel):
    missing: list[MissingBlob] = Field(description="What is still to be sent, in the order asked.")


class UploadView(BaseModel):
    offset: int = Field(description="The number of the next byte to send.")
    complete: bool = Field(description="Whether the blob is whole, verified and stored.")
