"""What needs attention, and what to do about a device that refuses its orders."""

from __future__ import annotations

from pilotwave_server.dashboard.words import N_

SENTENCES: tuple[str, ...] = (
    N_("1 device is waiting to be accepted"),
    N_("%(count)s devices are waiting to be accepted"),
    N_("compare the key that it shows before you accept it"),
    N_("1 key is used by two machines"),
    N_("%(count)s keys are used by two machines"),
    N_("1 device refuses its orders"),
    N_("%(count)s devices refuse their orders"),
    N_("the page of each device says why, and what to do"),
    N_("1 device is failing"),
    N_("%(count)s devices are failing"),
    N_("a version failed or went back"),
    N_("1 device is silent"),
    N_("%(count)s devices are silent"),
    N_("three check-ins were missed"),
    N_("1 device meets other inputs than its model's reference"),
    N_("%(count)s devices meet other inputs than their model's reference"),
    N_("the page of each device says by which figure, and shows its course"),
    N_("take its result: `%(text)s`"),
    N_("restored server"),
    N_("%(role)s expires in %(days)s days"),
    N_("run `%(text)s`"),
    N_("set this device's clock"),
    N_("this device's clock says %(time)s; set it"),
    N_("free room on its disk"),
    N_("let its agent write to its data folder"),
    N_("have it run fewer models"),
    N_("it was enrolled with another fleet, name or root of trust: enrol it anew"),
    N_("look at what lies between it and the server: a proxy, a portal, a slow link"),
    N_("look at `pilotwave devices events %(device)s`, and at its agent's log there"),
    N_("renew what expired (`pilotwave status` names it); if nothing did, set this device's clock"),
    N_(
        "this server is behind what the device has seen, as after a restore from a backup: "
        "`pilotwave status` says how far and what to do"
    ),
)
