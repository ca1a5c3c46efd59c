"""TUF documents on their way: fetched from the server, changed, signed, handed in.

A `Draft` holds the documents of one change together with the root that judges them, so that it can
travel as a file between the people who hold the keys of a threshold.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from securesystemslib.signer import Key, Signer
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root, Targets

from pilotwave_cli.client import Api
from pilotwave_cli.errors import ApiError, CliError, Failed
from pilotwave_protocol import signing, strictjson
from pilotwave_protocol.errors import BadJson

MAX_DRAFT = 16 << 20
# A draft comes from other people, and is handed in with the rights of whoever does it.
ROUTE = re.compile(r"/trust/(bootstrap|root|targets)|/models/[a-z0-9._-]{1,64}/metadata")


def now() -> datetime:
    """Return the present moment."""
    return datetime.now(timezone.utc)


@dataclass
class Draft:
    """Documents of one change. `route` is where they are handed in."""

    route: str
    root: Metadata[Root] | None = None
    targets: Metadata[Targets] | None = None
    roles: dict[str, Metadata[Targets]] = field(default_factory=dict)
    judge: Metadata[Root] | None = None
    owner: Metadata[Targets] | None = None

    def to_body(self) -> dict[str, Any]:
        """Return what the server is sent: the documents alone."""
        if self.route.startswith("/models/"):
            (role,) = self.roles.values()
            return {"role": plain(role)}
        body: dict[str, Any] = {}
        if self.root is not None:
            body["root"] = plain(self.root)
        if self.targets is not None:
            body["targets"] = plain(self.targets)
        if self.roles:
            body["roles"] = {name: plain(md) for name, md in self.roles.items()}
        return body

    def write(self, path: Path) -> None:
        """Write the draft as a file that can travel."""
        judge = plain(self.judge) if self.judge else None
        owner = plain(self.owner) if self.owner else None
        data: dict[str, Any] = {"route": self.route, "judge": judge, "owner": owner}
        data["root"] = plain(self.root) if self.root else None
        data["targets"] = plain(self.targets) if self.targets else None
        data["roles"] = {name: plain(md) for name, md in self.roles.items()}
        fresh = path.with_name(f".{path.name}.new")
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            fresh.write_text(json.dumps(data, indent=1, sort_keys=True) + "\n")
            fresh.replace(path)
        except OSError as e:
            raise CliError(f"{path}: cannot be written: {e.strerror}; name another --out") from e

    @classmethod
    def read(cls, path: Path) -> Draft:
        """Read a draft, or raise `CliError`."""
        try:
            data = strictjson.loads(path.read_bytes(), max_bytes=MAX_DRAFT)
            return cls(
                route=_route(data["route"]),
                root=_load(data.get("root"), Root),
                targets=_load(data.get("targets"), Targets),
                roles={name: _load(md, Targets) for name, md in (data.get("roles") or {}).items()},
                judge=_load(data.get("judge"), Root),
                owner=_load(data.get("owner"), Targets),
            )
        except OSError as e:
            raise CliError(f"{path}: cannot be read: {e.strerror}") from e
        except (BadJson, KeyError, TypeError, AttributeError, ValueError, RepositoryError) as e:
            raise CliError(
                f"{path}: expected a draft, as `--out` of a command writes it: {e}"
            ) from e

    def holders(self) -> dict[str, set[str]]:
        """Return the key ids that may sign each document, by document."""
        found: dict[str, set[str]] = {}
        judges = [md.signed for md in (self.judge, self.root) if md is not None]
        if self.root is not None:
            found["root"] = {k for root in judges for k in root.roles["root"].keyids}
        newest = judges[-1] if judges else None
        if self.targets is not None and newest is not None:
            found["targets"] = set(newest.roles["targets"].keyids)
        owners = [md.signed for md in (self.owner, self.targets) if md is not None]
        for name in self.roles:
            found[name] = {k for t in owners for k in _keyids(t, name)}
        return found

    def keys(self) -> dict[str, Key]:
        """Return the public keys that may sign any of the documents, by id."""
        wanted = {keyid for ids in self.holders().values() for keyid in ids}
        known: dict[str, Key] = {}
        for root in (self.judge, self.root):
            known |= root.signed.keys if root else {}
        for targets in (self.owner, self.targets):
            delegations = targets.signed.delegations if targets else None
            known |= delegations.keys if delegations else {}
        return {keyid: key for keyid, key in known.items() if keyid in wanted}

    def sign(self, signers: Iterable[Signer]) -> list[str]:
        """Add each signer's signature to what it may sign; returns `document by key` lines."""
        signed = []
        holders = self.holders()
        documents: dict[str, Metadata[Any]] = dict(self.roles)
        if self.root is not None:
            documents["root"] = self.root
        if self.targets is not None:
            documents["targets"] = self.targets
        for signer in signers:
            keyid = signer.public_key.keyid
            for name, md in documents.items():
                if keyid in holders[name]:
                    signing.sign(md, [signer], append=True)
                    signed.append(f"{name} by {keyid[:12]}…")
        return signed

    def missing(self) -> list[str]:
        """Say which documents lack signatures, as sentences; empty when all can be handed in."""
        lines = []
        if self.root is not None:
            judges = [md.signed for md in (self.judge, self.root) if md is not None]
            lines += [_lack("root", j, "root", self.root) for j in judges]
        newest = (self.root or self.judge) if self.targets is not None else None
        if newest is not None and self.targets is not None:
            lines.append(_lack("targets", newest.signed, "targets", self.targets))
        owner = self.targets or self.owner
        for name, md in self.roles.items():
            if owner is not None:
                lines.append(_lack(name, owner.signed, name, md))
        return sorted({line for line in lines if line})


def _lack(name: str, delegator: Root | Targets, role: str, md: Metadata[Any]) -> str:
    result = delegator.get_verification_result(role, md.signed_bytes, md.signatures)
    if result.verified:
        return ""
    return f"{name} lacks {result.missing} signature(s)"


def _keyids(targets: Targets, role: str) -> list[str]:
    roles = (targets.delegations.roles or {}) if targets.delegations else {}
    return list(roles[role].keyids) if role in roles else []


def plain(md: Metadata[Any]) -> dict[str, Any]:
    """Return a document as JSON values."""
    return dict(md.to_dict())


def _route(value: object) -> str:
    if not isinstance(value, str) or not ROUTE.fullmatch(value):
        raise ValueError(f"it is for no place where documents are handed in: {ascii(value)[:60]}")
    return value


def _load(data: Any, kind: type[Root] | type[Targets]) -> Any:
    found = None if data is None else Metadata.from_dict(data)
    if found is not None and not isinstance(found.signed, kind):
        raise ValueError(f"expected a {kind.type} document; got {found.signed.type}")
    return found


def read_document(path: Path) -> Metadata[Root] | Metadata[Targets] | None:
    """Return a signed root or targets document that is a file, as `root.json`; None: it is none."""
    try:
        data = strictjson.loads(path.read_bytes(), max_bytes=MAX_DRAFT)
        found: Metadata[Any] = Metadata.from_dict(data)
    except OSError as e:
        raise CliError(f"{path}: cannot be read: {e.strerror}") from e
    except (BadJson, KeyError, TypeError, AttributeError, ValueError, RepositoryError):
        return None
    return found if isinstance(found.signed, (Root, Targets)) else None


def fetch_root(api: Api) -> Metadata[Root]:
    """Return the fleet's newest root."""
    root: Metadata[Root] = _fetch(api, "root")
    return root


def fetch_targets(api: Api) -> Metadata[Targets]:
    """Return the fleet's newest targets document."""
    targets: Metadata[Targets] = _fetch(api, "targets")
    return targets


def fetch_role(api: Api, role: str) -> Metadata[Targets]:
    """Return a model role's newest document."""
    found: Metadata[Targets] = _fetch(api, role)
    return found


def _fetch(api: Api, role: str) -> Any:
    try:
        raw = api.send("GET", f"/api/v1/trust/metadata/{role}").content
        return Metadata.from_bytes(raw)
    except ApiError as e:
        if e.status == 404 and role in {"root", "targets"}:
            raise CliError("this fleet has no root of trust yet; run `pilotwave keys init`") from e
        raise
    except RepositoryError as e:
        raise Failed(f"the server's {role} document cannot be read: {e}") from e
