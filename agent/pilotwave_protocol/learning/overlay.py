"""An overlay: what one device adds to the scores of one version, as a file of its own.

The file is a line of strict JSON, a line feed, and the numbers [features + 1, classes] as
little-endian float32 row by row, the last row the bias. Its name is its SHA-256, so nobody takes a
file that was changed, and the line says whose answers it changes: no other version's, no other
variant's. Reading the line takes no numpy.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from pilotwave_protocol import names, strictjson
from pilotwave_protocol.digest import sha256_hex
from pilotwave_protocol.errors import BadJson, BadMessage
from pilotwave_protocol.fields import Fields, format_time
from pilotwave_protocol.learning.device_plan import MAX_EXAMPLES, Kind, Scores
from pilotwave_protocol.learning.plan import MAX_CLASSES, MAX_FEATURES, decimal

FOLDER = "overlays"
ENDING = ".overlay"
MAX_OVERLAY_BYTES = 4 * (MAX_FEATURES + 1) * MAX_CLASSES + (8 << 10)
_MAX_LINE = 8 << 10
_SCHEMA = "pilotwave/overlay/1"


@dataclass(frozen=True)
class Overlay:
    """`sha256` is the manifest's of the version whose answers it changes, `plan` the plan's. Of the
    `held_out` examples, `better` are right with it alone, `worse` without it alone; `gain` is what
    that shows. `distance` is its length, `numbers` the digest of its numbers, `digest` the file's
    (empty before it is one)."""

    model: str
    version: str
    sha256: str
    variant: str
    plan: str
    embedding: str
    scores: Scores
    features: int
    classes: int
    clip: str
    distance: str
    since: datetime
    examples: int
    held_out: int
    better: int
    worse: int
    gain: str
    numbers: str
    digest: str = ""

    def is_for(self, model: str, sha256: str, variant: str) -> bool:
        """Say whether it changes this version's answers."""
        return (self.model, self.sha256, self.variant) == (model, sha256, variant)

    def to_file(self, numbers: bytes) -> bytes:
        """Write the file; its name is its digest."""
        plain: dict[str, Any] = {"schema": _SCHEMA, **vars(self), "since": format_time(self.since)}
        plain["scores"] = {"output": self.scores.output, "kind": self.scores.kind.value}
        plain["numbers"] = sha256_hex(numbers)
        del plain["digest"]
        return strictjson.dumps(plain) + b"\n" + numbers


def file_name(digest: str) -> str:
    """Name the file of an overlay."""
    return f"{digest}{ENDING}"


def read_overlay(raw: bytes, name: str) -> tuple[Overlay, bytes]:
    """Return an overlay and its numbers, or raise `BadMessage`: `name` is the file's, which says
    its digest."""
    digest = sha256_hex(raw)
    if name != file_name(digest):
        raise BadMessage(f"overlay {name[:80]}: expected the digest of its name; got {digest}")
    line, _, numbers = raw.partition(b"\n")
    try:
        f = Fields(strictjson.loads(line, max_bytes=_MAX_LINE, max_depth=3), "", BadMessage)
    except BadJson as e:
        raise BadMessage(f"overlay: {e}") from e
    if f.raw("schema") != _SCHEMA:
        raise f.fail("schema", _SCHEMA, f.raw("schema"))
    found = replace(_overlay(f), digest=digest)
    size = 4 * (found.features + 1) * found.classes
    if len(numbers) != size or sha256_hex(numbers) != found.numbers:
        raise BadMessage(f"overlay: expected {size} bytes of the numbers that its line names")
    return found, numbers


def _overlay(f: Fields) -> Overlay:
    scores = f.inner("scores")
    found = Overlay(
        model=f.named("model", names.check_model),
        version=f.named("version", names.check_version),
        sha256=f.named("sha256", names.check_sha256),
        variant=f.named("variant", names.check_variant),
        plan=f.named("plan", names.check_sha256),
        embedding=f.text("embedding", limit=256),
        scores=Scores(scores.text("output", limit=256), scores.one_of("kind", Kind)),
        features=f.integer("features", low=1, high=MAX_FEATURES),
        classes=f.integer("classes", low=2, high=MAX_CLASSES),
        clip=decimal(f, "clip"),
        distance=f.text("distance", limit=32),
        since=f.time("since"),
        examples=f.integer("examples", high=MAX_EXAMPLES),
        held_out=f.integer("held_out", high=MAX_EXAMPLES),
        better=f.integer("better", high=MAX_EXAMPLES),
        worse=f.integer("worse", high=MAX_EXAMPLES),
        gain=f.text("gain", limit=32),
        numbers=f.named("numbers", names.check_sha256),
    )
    scores.done()
    f.done()
    return found
