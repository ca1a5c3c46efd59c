"""`[escalate]` of the settings file: whether inputs may leave this device for a bigger model's
answer, and where to.

    [escalate]
    allow = true
    site = "https://gateway.local:8001"
    pin = "sha256:5f0c…"

Without `allow` no input leaves it, whatever a version's signed file says (docs/tiers.md).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from pilotwave_protocol.fields import Fields

NEVER = "never"
PIN = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True)
class EscalateSettings:
    """`site` and `cloud` are URLs of model servers that speak the Open Inference Protocol. `pin` is
    the SHA-256 of the public key that the site's server has, in place of the authorities."""

    allow: bool = False
    site: str = ""
    pin: str = ""
    cloud: str = NEVER


def read_escalate(f: Fields, check_url: Callable[..., str]) -> EscalateSettings:
    """Read the section, or raise what `f` and `check_url` raise."""
    site, cloud = f.text("site", default=""), f.text("cloud", default=NEVER)
    found = EscalateSettings(
        allow=f.boolean("allow", default=False),
        site=check_url(site, key=f.at("site")) if site else "",
        pin=f.text("pin", default=""),
        cloud=cloud if cloud == NEVER else check_url(cloud, key=f.at("cloud")),
    )
    f.done()
    if found.pin and not PIN.fullmatch(found.pin):
        raise f.fail("pin", "sha256: and the 64 hex digits of a public key's digest", found.pin)
    if found.pin and not found.site.startswith("https://"):
        raise f.fail("pin", "a site with https, whose key it is", found.site)
    if found.cloud != NEVER and not found.cloud.startswith("https://"):
        raise f.fail("cloud", f"{NEVER}, or a URL with https", found.cloud)
    if found.allow and not found.site and found.cloud == NEVER:
        raise f.fail("site", "a URL, as allow is true and cloud is never", found.site)
    return found
