"""Change a model's role as its publisher: sign the next document and hand it in.

Others may be doing the same, and an answer may be lost: then the role is read again, and what is
done already is not done twice.
"""

from __future__ import annotations

import base64
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from securesystemslib.signer import Signer
from tuf.api.metadata import Metadata, Targets

from pilotwave_cli import output
from pilotwave_cli.client import IN_PROGRESS, Api
from pilotwave_cli.errors import ApiError, Failed, NoAnswer
from pilotwave_cli.keys import drafts, rotation_drafts
from pilotwave_cli.keys.drafts import Draft, now
from pilotwave_cli.keys.key_options import SigningOptions
from pilotwave_cli.keys.keyfiles import find_keys, load_keys
from pilotwave_cli.keys.rotate_command import delegated
from pilotwave_cli.upload import upload_bytes
from pilotwave_protocol import names

CLASHES = 20
SILENCES = 5
Change = Callable[[Metadata[Targets]], "bytes | None"]


class DoneBefore(Exception):
    """The very same change is in the registry already."""


@dataclass(frozen=True)
class Publisher:
    """The keys at hand that may sign a model's role, and the documents that say so."""

    model: str
    signers: list[Signer]
    targets: Metadata[Targets]
    threshold: int

    @property
    def role(self) -> str:
        """Return the name of the model's TUF role."""
        return names.role_for_model(self.model)


def find_publisher(api: Api, model: str, key: list[str] | None, sign: SigningOptions) -> Publisher:
    """Load the publisher's keys before anything is sent, or say why these will not do."""
    targets = drafts.fetch_targets(api)
    role = delegated(targets).get(names.role_for_model(model))
    if role is None:
        raise Failed(
            f"there is no model {model}; "
            f"make it with `pilotwave models create {model} --publisher keys/publisher.pem`"
        )
    delegations = targets.signed.delegations
    known = [delegations.keys[k] for k in role.keyids] if delegations else []
    if key:
        signers = load_keys(key, sign.ask, known)
    else:
        signers = find_keys(sign.keys, role.keyids, sign.ask, f"publisher of {model}")
    if not any(s.public_key.keyid in role.keyids for s in signers):
        wanted = ", ".join(k[:12] + "…" for k in role.keyids)
        given = ", ".join(key) if key else str(sign.keys)
        raise Failed(f"{given}: not the publisher key of {model}, which is {wanted}")
    return Publisher(model, signers, targets, role.threshold)


def submit(
    api: Api, publisher: Publisher, change: Change, out: Path | None = None
) -> dict[str, Any] | None:
    """Change a model's role, sign it, hand it in; read it again after a clash or a lost answer.

    `change` raises `DoneBefore` where there is nothing to change: then a lost answer was a yes.
    Returns None where further publishers have to sign what was written to `out`.
    """
    lost = 0
    for attempt in range(CLASHES):
        try:
            return _submit_once(api, publisher, change, out)
        except DoneBefore:
            if not lost:
                raise
            return {}
        except (NoAnswer, ApiError) as e:
            if isinstance(e, ApiError) and e.problem == "version_clash":
                # whoever lost a race must not lose the next one in step with the others
                time.sleep(random.uniform(0, min(2.0, 0.05 * 2**attempt)))
                continue
            # a host that ends while it answers leaves its request in progress
            if isinstance(e, ApiError) and e.problem != IN_PROGRESS:
                raise
            lost += 1
            if lost > SILENCES:
                raise
            time.sleep(min(2**lost / 4, 8))
    raise Failed(f"{publisher.model} is being changed by others; try again later")


def _submit_once(
    api: Api, publisher: Publisher, change: Change, out: Path | None
) -> dict[str, Any] | None:
    role = rotation_drafts.next_role(drafts.fetch_role(api, publisher.role), now())
    manifest = change(role)
    draft = Draft(
        f"/models/{publisher.model}/metadata", roles={publisher.role: role}, owner=publisher.targets
    )
    draft.sign(publisher.signers)
    lacking = draft.missing()
    if lacking:
        _pass_on(api, draft, manifest, lacking, out)
        return None
    body: dict[str, Any] = draft.to_body()
    if manifest is not None:
        body["manifest"] = base64.b64encode(manifest).decode()
    return dict(api.post(draft.route, body) or {})


def _pass_on(
    api: Api, draft: Draft, manifest: bytes | None, lacking: list[str], out: Path | None
) -> None:
    """Write what further publishers must sign; the manifest waits on the server as a blob."""
    if out is None:
        raise Failed(f"{'; '.join(lacking)}; name more keys with --key, or --out FILE to pass on")
    if manifest is not None:
        upload_bytes(api, manifest)
    draft.write(out)
    output.say(f"{out} waits for signatures: {'; '.join(lacking)}")
