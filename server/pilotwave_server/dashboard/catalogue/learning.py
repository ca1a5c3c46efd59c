"""What experiments with training plans say of their state, and refuse."""

from __future__ import annotations

from pilotwave_server.dashboard.words import N_

SENTENCES: tuple[str, ...] = (
    N_("paused by %(who)s"),
    N_("stopped by %(who)s"),
    N_("%(count)s of %(all)s devices took part"),
    N_("no head could be made: %(text)s"),
    N_("%(count)s devices failed, over max_failed %(most)s: %(reasons)s"),
    N_("the publisher of %(model)s has dropped plan %(name)s"),
    N_("the plan's time ended with round %(count)s of %(all)s"),
    N_("round %(count)s: %(said)s"),
    N_("the result is that of round %(count)s"),
    N_("This server sees what each device sent, until the round ends."),
    N_(
        "This server sees sums over groups of %(count)s devices, of which %(all)s or more took "
        "part, and of no device what it sent; a server that makes devices up could."
    ),
    N_(
        "The result tells little of any one device (epsilon %(number)s, delta %(number2)s), and "
        "this server sees what each device sent, with its noise."
    ),
    N_("there is no experiment %(number)s"),
    N_("experiment %(number)s is %(state)s"),
    N_("experiment %(number)s has just changed; look again"),
    N_("round %(count)s of experiment %(number)s is %(state)s"),
)
