"""Sign drafts and hand them in; what lacks signatures becomes a file that travels.

Nothing that was made is lost: a draft that cannot be handed in yet is written down first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from securesystemslib.signer import Key, Signer

from pilotwave_cli import output
from pilotwave_cli.client import Api
from pilotwave_cli.errors import ApiError, CliError, Failed
from pilotwave_cli.keys.drafts import Draft
from pilotwave_cli.keys.key_options import SigningOptions
from pilotwave_cli.keys.keyfiles import find_keys, load_keys


def hand_in(api: Api, draft: Draft) -> bool:
    """Hand a complete draft in, or raise `Failed` saying what is missing or who was faster.

    Returns whether it changed anything: False where the same draft had been accepted before.
    """
    lacking = draft.missing()
    if lacking:
        raise Failed(
            "; ".join(lacking) + "; let the holders run `pilotwave keys sign FILE --key KEY`"
        )
    try:
        done = api.post(draft.route, draft.to_body()) or {}
    except ApiError as e:
        if e.problem != "version_clash":
            raise
        raise Failed(f"{e}; somebody else changed it first: make this change again") from e
    return not done.get("repeated", False)


def complete(
    api: Api, draft: Draft, signers: Iterable[Signer], out: Path | None, *, spare: Path
) -> bool:
    """Sign a draft and hand it in; what lacks signatures is written to `out` (False) or `spare`.

    Without `out` the command expected to finish here, so that it ends as `Failed`.
    """
    draft.sign(signers)
    lacking = draft.missing()
    if not lacking:
        hand_in(api, draft)
        return True
    target = out or spare
    draft.write(target)
    waits = f"{target} waits for signatures: {'; '.join(lacking)}"
    if out is None:
        raise Failed(
            f"{waits}; let the other holders run `pilotwave keys sign {target} --key …`, "
            f"then `pilotwave keys submit {target}`"
        )
    output.say(waits)
    return False


def signers_for(
    drafts: Iterable[Draft],
    key: list[str] | None,
    sign: SigningOptions,
    what: str,
    *,
    besides: Sequence[Signer] = (),
) -> list[Signer]:
    """Load the keys named, or those in the folder that may sign the drafts; with `besides`."""
    holders: dict[str, Key] = {}
    for draft in drafts:
        holders |= draft.keys()
    if key:
        found = load_keys(key, sign.ask, list(holders.values()))
    else:
        made = {s.public_key.keyid for s in besides}
        try:
            found = find_keys(sign.keys, holders.keys() - made, sign.ask, what)
        except CliError as e:
            if not besides:
                raise
            # with new keys just made, the draft must be written down even so
            output.warn(str(e))
            found = []
    return [*found, *besides]
