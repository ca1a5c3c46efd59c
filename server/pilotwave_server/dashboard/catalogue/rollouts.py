"""What the engine and operators say of a rollout: why it waits, went on or may not begin."""

from __future__ import annotations

from pilotwave_server.dashboard.words import N_

SENTENCES: tuple[str, ...] = (
    # the engine
    N_("wave %(number)s (%(name)s) opens: %(text)s"),
    N_("install: %(text)s"),
    N_("rolled back: %(text)s"),
    N_("paused: %(text)s"),
    N_("paused for a person to decide: %(text)s"),
    N_("started at the time it was scheduled for"),
    N_("it was to start now, but %(text)s"),
    N_("it had to be complete by %(at)s"),
    N_("the rollout has started"),
    N_("wave %(name)s has no device that could take the version"),
    N_("%(said)s; this must hold until %(at)s (%(span)s)"),
    N_("%(said)s; an operator opens the next wave (`next`)"),
    N_("%(said)s; this held for %(span)s"),
    N_("%(said)s; %(have)s not started yet, %(flight)s in flight"),
    N_("completed: %(said)s; %(group)s now runs %(model)s %(version)s"),
    N_("completed: %(said)s; %(devices)s did not start within %(span)s"),
    N_("no device that took the version reports that it still runs it"),
    N_("every device that took the version has left it"),
    N_("no device had switched to the version"),
    N_("%(have)s not yet reported leaving the version; each poll says to"),
    N_("%(have)s been silent lately; the next poll tells it to leave it"),
    N_("%(have)s been silent lately; the next poll tells them to leave it"),
    N_("%(keep)s it: %(text)s"),
    N_("no other version may be offered to it"),
    N_("an operator pinned it there"),
    N_("%(rollout)s brings it to group %(group)s, where the device is now"),
    N_("it is the baseline of group %(group)s, where the device is now"),
    N_("the open waves hold no device yet that could take the version"),
    N_("%(count)s of at least %(devices)s finished, %(flight)s in flight"),
    N_("%(devices)s finished, %(failed)s failed"),
    N_("said nothing in time after the switch"),
    N_("created under the policy %(policy)s by %(who)s"),
    N_("approved by %(who)s"),
    N_("started by %(who)s"),
    N_("paused by %(who)s"),
    N_("resumed by %(who)s"),
    N_("aborted by %(who)s"),
    N_("rolled back by %(who)s"),
    N_("wave %(number)s opened by hand by %(who)s"),
    N_("wave %(number)s (%(name)s) opened by hand by %(who)s"),
    N_("%(devices)s tries again, asked for by %(who)s"),
    N_("%(devices)s try again, asked for by %(who)s"),
    N_("those with %(text)s"),
    N_("those of the group %(group)s"),
    N_("%(names)s and %(more)s more"),
    N_("%(count)s in flight of at most %(most)s"),
    N_("%(count)s of at most %(most)s started this minute"),
    N_("%(count)s in flight; the ramp allows %(most)s after %(healthy)s healthy"),
    N_("%(count)s of %(all)s in flight or failed; min_available %(share)s allows %(most)s"),
    N_("%(model)s %(version)s was rolled back in %(rollout)s (%(group)s): %(text)s"),
    N_(
        "min_available %(share)s lets none of the %(devices)s in %(group)s update. The rollout "
        "updates one at a time instead, and stops while one has failed"
    ),
    N_(
        "%(rollout)s (%(model)s %(version)s to %(group)s) is %(state)s: wait until it is over, "
        "or stop it: `pilotwave rollouts abort %(rollout2)s`"
    ),
    N_(
        "a server process on the host %(host)s is of an older release, which would switch the "
        "devices of a shadow wave: install this release there and restart its server, or stop it "
        "and wait %(span)s"
    ),
    N_(
        "no variant of %(model)s %(version)s fits any of the %(count)s devices of %(group)s: "
        "%(reasons)s"
    ),
    N_("the group %(group)s is an empty list: add devices to it first"),
    N_(
        "the group %(group)s has no enrolled device: its selector `%(selector)s` matches none "
        "(labels are written `site=berlin`, devices' own facts `fact.arch=aarch64`)"
    ),
    N_("wave %(number)s (%(name)s) takes none of the enrolled devices of %(group)s: %(text)s"),
    N_("its selector `%(selector)s` matches none of them"),
    N_("none is in the group %(group)s"),
    N_("none is named %(text)s"),
    N_("there is no group %(group)s for the canary wave"),
    N_("expected `end_at` after `start_at` and in the future"),
    N_("expected a salt as a preview shows it"),
    N_("there is no rollout %(rollout)s"),
    N_("there is no step %(step)s"),
    N_("%(rollout)s has changed since"),
    N_("%(rollout)s has changed since: look at it again"),
    N_("%(rollout)s is %(state)s, so it cannot become %(state2)s"),
    N_("%(rollout)s is %(state)s: a wave opens while it runs"),
    N_("%(rollout)s has %(count)s of its %(all)s waves open"),
    N_("%(rollout)s was created by %(who)s: somebody else has to approve it"),
    N_("%(rollout)s waits for approval: `approve` starts it"),
    N_("%(rollout)s is paused: `resume` lets it go on"),
    N_("%(rollout)s is %(state)s: failed devices try again while it runs or is paused"),
    N_("%(rollout)s failed on no device so far"),
    N_("%(rollout)s is %(state)s: it cannot be approved"),
    N_("%(rollout)s is %(state)s: it cannot be resumed"),
    N_(
        "%(device)s would be asked to run %(count)s models; its agent takes %(most)s. Unassign "
        "models from it, or update its agent"
    ),
    N_("%(group)s has no version of %(model)s assigned"),
    N_("its pin tells %(device)s to run %(model)s %(version)s: take that back first"),
    N_("group %(group)s tells %(device)s to run %(model)s %(version)s: take that back first"),
    N_("%(model)s was not ordered off %(group)s"),
    N_("taken back with rollout %(rollout)s: %(text)s"),
    N_("taken back with the rollout; it runs %(version)s"),
    N_("the wave is optional: %(said)s"),
    N_("%(devices)s tried it in shadow, %(failed)s failed"),
    N_("%(count)s of at least %(devices)s compared %(calls)s each, %(flight)s in flight"),
    N_(
        "%(count)s of at least %(devices)s compared %(calls)s each, %(flight)s in "
        "flight, within %(span)s"
    ),
    N_(
        "no device of the wave can try %(model)s %(version)s in shadow: that takes an agent "
        "which knows how, and another version of %(model2)s in use there"
    ),
    N_(
        "no application has compared a call in %(span)s on %(devices)s with the version in "
        "shadow: does one take part there, by LiveModel or its socket?"
    ),
)
