"""The kinds of values that the API takes, checked by the protocol's own rules, and the bases of its
request and answer documents.

Path, query and body parameters use these by type: `device: DeviceName`.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timezone
from typing import Annotated, Any

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, Strict

from pilotwave_protocol import names
from pilotwave_protocol.errors import BadName

SLUG = r"^[a-z0-9]+(?:[._-][a-z0-9]+)*$"
LABEL_KEY = r"^(?!fact\.)[a-z][a-z0-9]*(?:[._-][a-z0-9]+)*$"
VERSION = r"^[0-9A-Za-z](?:[0-9A-Za-z.+-]*[0-9A-Za-z])?$"
SHA256 = r"^[0-9a-f]{64}$"


class ApiRequest(BaseModel):
    """A request document: unknown fields and near-miss types ("5" for 5) are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, str_max_length=100_000)


class ApiReply(BaseModel):
    """An answer document, made from a table's row or by hand."""

    model_config = ConfigDict(from_attributes=True)


def _checked(check: Callable[[object], str], limit: int, pattern: str, example: str) -> Any:
    def validate(value: str) -> str:
        try:
            return check(value)
        except BadName as error:
            raise ValueError(str(error)) from None

    schema: dict[str, Any] = {"minLength": 1, "maxLength": limit}
    if pattern:
        schema["pattern"] = pattern
    return AfterValidator(validate), Field(json_schema_extra=schema, examples=[example])


_model = _checked(names.check_model, 64, SLUG, "detector")
_version = _checked(names.check_version, 64, VERSION, "1.4.0")
_device = _checked(names.check_device, 64, SLUG, "cam-017")
_group = _checked(names.check_group, 64, SLUG, "berlin-cams")
_label_key = _checked(names.check_label_key, 64, LABEL_KEY, "site")
_label_value = _checked(names.check_label_value, 128, "", "berlin")
_sha256 = _checked(names.check_sha256, 64, SHA256, "0" * 64)

ModelName = Annotated[str, _model[0], _model[1]]
VersionName = Annotated[str, _version[0], _version[1]]
DeviceName = Annotated[str, _device[0], _device[1]]
GroupName = Annotated[str, _group[0], _group[1]]
LabelKey = Annotated[str, _label_key[0], _label_key[1]]
LabelValue = Annotated[str, _label_value[0], _label_value[1]]
PersonName = Annotated[
    str,
    Field(
        min_length=1,
        max_length=64,
        pattern=SLUG,
        description="What somebody signs in as.",
        examples=["ada"],
    ),
]
Sha256 = Annotated[str, _sha256[0], _sha256[1]]


def _text(value: str) -> str:
    if not value.strip() or any(c < " " and c not in "\n\t" for c in value):
        raise ValueError("expected text without control characters")
    return value


def _within_calendar(value: datetime) -> datetime:
    """A time near the calendar's ends leaves it when it is turned into UTC."""
    try:
        return value.astimezone(timezone.utc)
    except OverflowError:
        raise ValueError("expected a time that UTC can express") from None


ReasonText = Annotated[
    str,
    AfterValidator(_text),
    Field(min_length=1, max_length=500, description="Why, in words, for the audit log."),
]
Moment = Annotated[AwareDatetime, Strict(False), AfterValidator(_within_calendar)]
"""A time with a zone, RFC 3339."""
