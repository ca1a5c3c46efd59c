"""Why a device runs what it runs, and what may not be done to it."""

from __future__ import annotations

from pilotwave_server.dashboard.words import N_

SENTENCES: tuple[str, ...] = (
    N_("%(device)s keeps its %(model)s: no pin, rollout or baseline names a version"),
    N_("%(device)s keeps its %(model)s: no version that it is asked to run may be offered"),
    N_("%(device)s should run %(model)s %(version)s (variant %(variant)s), because %(text)s"),
    N_(
        "%(count)s of the last %(all)s inputs had a confidence below %(limit)s; of the reference's "
        "%(rows)s inputs %(share)s had, and at most %(bound)s may"
    ),
    N_(
        "%(count)s of the last %(all)s inputs had a %(name)s outside %(low)s to %(high)s; of the "
        "reference's %(rows)s inputs %(share)s had, and at most %(bound)s may"
    ),
    N_("%(device)s is told to remove %(model)s: an operator ordered it"),
    N_(
        "%(variant)s: %(shown)s (median of %(count)s devices of this class), %(percent)s %% less "
        "than %(variant2)s"
    ),
    N_("%(variant)s: %(shown)s (measured on this device), %(percent)s %% less than %(variant2)s"),
    N_(
        "%(variant)s: %(shown)s (median of %(count)s devices of this class); "
        "%(variant2)s does not run within the bounds here"
    ),
    N_(
        "%(variant)s: %(shown)s (measured on this device); "
        "%(variant2)s does not run within the bounds here"
    ),
    N_(
        "%(variant)s: %(shown)s (median of %(count)s devices of this class); "
        "no other variant was measured"
    ),
    N_("%(variant)s: %(shown)s (measured on this device); no other variant was measured"),
    N_(
        "%(variant)s: %(shown)s (median of %(count)s devices of this class); "
        "none is %(percent)s %% better: %(variant2)s takes %(shown2)s"
    ),
    N_(
        "%(variant)s: %(shown)s (measured on this device); "
        "none is %(percent)s %% better: %(variant2)s takes %(shown2)s"
    ),
    N_("%(variant)s failed on this device; %(text)s"),
    N_("too few devices of this class have measured it yet, so the publisher's order holds"),
    N_("no variant keeps %(names)s, so the publisher's order holds"),
    N_("of the variants that fit, %(variant)s alone keeps %(names)s"),
    N_("group %(group)s chooses by %(word)s: %(text)s"),
    N_("an operator pinned it"),
    N_("it is the baseline of group %(group)s"),
    N_("rollout %(rollout)s brings it to group %(group)s"),
    N_("The device says: %(text)s"),
    N_("an operator pinned it (%(version)s): chosen, variant %(variant)s"),
    N_("an operator pinned it (%(version)s): skipped, %(text)s"),
    N_("it is the baseline of group %(group)s (%(version)s): chosen, variant %(variant)s"),
    N_("it is the baseline of group %(group)s (%(version)s): skipped, %(text)s"),
    N_(
        "rollout %(rollout)s brings it to group %(group)s (%(version)s): chosen, "
        "variant %(variant)s"
    ),
    N_("rollout %(rollout)s brings it to group %(group)s (%(version)s): skipped, %(text)s"),
    N_("%(rollout)s is paused, and this device had not started"),
    N_("%(rollout)s limits how many devices change at once; this one waits its turn"),
    N_("it may try again; %(text)s"),
    N_("it was let in before and did not begin in time; %(text)s"),
    N_("it was let in before and left the version during probation; %(text)s"),
    N_("no wave of %(rollout)s is open yet; this device is due at %(place)s %%"),
    N_(
        "%(rollout)s has opened wave %(wave)s, up to %(reached)s %% of the group; "
        "this device is due when the rollout reaches %(place)s %%"
    ),
    N_(
        "%(version)s failed on %(device)s, so %(rollout)s offers it no more; "
        "to let it try again: `%(text)s`"
    ),
    N_(
        "%(version)s failed on %(device)s (%(text)s), so %(rollout)s offers it no more; "
        "to let it try again: `pilotwave devices retry %(device2)s --model %(model)s`"
    ),
    N_("%(device)s has been silent since %(time)s; it takes new orders when it is back"),
    N_("%(device)s has not checked in yet"),
    N_("%(model)s %(version)s is not in the registry"),
    N_("%(model)s %(version)s was yanked by its publisher: %(text)s"),
    N_("%(model)s %(version)s was denied by an operator: %(text)s"),
    N_(
        "%(model)s %(version)s (release counter %(counter)s) is below the floor %(floor)s "
        "that its publisher set"
    ),
    N_(
        "variant %(variant)s has a format that can run code when loaded, and this device's "
        "configuration does not allow that (allow_unsafe_formats)"
    ),
    N_(
        "the agent there cannot replace itself: its service was installed by an older agent or by "
        "hand, or its settings say self_update = false"
    ),
    N_("variant %(variant)s needs %(name)s, which is not installed here"),
    N_("variant %(variant)s needs %(name)s, which is not here"),
    N_("variant %(variant)s needs %(memory)s MB of memory; here %(have)s"),
    N_("variant %(variant)s needs %(name)s; here is %(version)s"),
    N_("variant %(variant)s is for %(arch)s; this is %(arch2)s"),
    N_("variant %(variant)s needs a processor with one of %(list)s; this one has none of them"),
    N_("variant %(variant)s needs %(fact)s %(shown)s; nothing is known of %(fact2)s here"),
    N_("variant %(variant)s needs %(fact)s %(shown)s; here it is %(shown2)s"),
    N_(
        "%(model)s %(version)s has a manifest of schema %(schema)s, and the agent there reads "
        "schema %(schema2)s: update the agent first"
    ),
    N_("no variant of %(model)s %(version)s fits: %(text)s"),
    N_("%(model)s %(version)s is quarantined for the fleet: %(text)s"),
    N_("%(model)s %(version)s is quarantined for %(group)s: %(text)s"),
    N_(
        "two machines use the key of %(device)s, probably copies of one disk image: nothing is "
        "offered until one of them is enrolled anew (on it: `%(command)s`), and then "
        "`pilotwave devices settle %(device2)s`"
    ),
    N_(
        "this device is asked to run %(count)s models and its agent takes %(most)s models: "
        "take models from it, or update its agent"
    ),
    N_(
        "this device is asked to run %(count)s models and its agent takes a directive of "
        "%(most)s bytes: take models from it, or update its agent"
    ),
    N_("%(device)s is %(state)s, so it gets nothing; if it were enrolled: %(text)s"),
    N_(
        "%(device)s keeps %(model)s although an operator ordered its removal: its agent cannot "
        "remove models (update it) or may not (allow_removal in its settings)"
    ),
    N_("rollout %(rollout)s, of which it took %(taken)s, was rolled back"),
    N_(
        "rollout %(rollout)s, of which it took %(taken)s, was rolled back (%(version)s): "
        "chosen, variant %(variant)s"
    ),
    N_(
        "rollout %(rollout)s, of which it took %(taken)s, was rolled back (%(version)s): "
        "skipped, %(text)s"
    ),
    N_(
        "%(have)s seen more than this server's database holds: %(names)s; %(list)s: run "
        "`pilotwave-server restore --data FOLDER` if it was restored"
    ),
    N_("%(kind)s %(seen)s (here %(here)s)"),
    N_("a directive that this server did not give"),
    N_(
        "%(role)s: devices know document %(seen)s, here it is %(here)s: sign past it "
        "(`pilotwave renew --role %(role2)s --past %(seen2)s`), or `pilotwave keys rotate "
        "online`"
    ),
    N_("there is no device %(device)s"),
    N_("%(device)s is %(state)s: only a device that waits can be accepted"),
    N_("%(device)s is %(state)s: only a device that waits can be rejected"),
    N_("%(device)s is not enrolled yet: reject it instead"),
    N_("%(device)s is %(state)s: only an enrolled device can be decommissioned"),
    N_("%(device)s runs no version of %(model)s, as far as it said"),
    N_(
        "%(device)s runs %(model)s %(version)s and has nothing to go back to: %(text)s. Name "
        "the version to go back to (on the command line: `--to VERSION`)"
    ),
    N_("no older version was ever healthy there"),
    N_("no application runs here that could try it"),
    N_("no application here says that it tries it"),
    N_("the application %(app)s says: %(text)s"),
    N_("given up: %(text)s"),
    N_("the candidate %(text)s"),
    N_("the candidate: %(text)s"),
    N_("the serving version %(text)s"),
    N_("the serving version: %(text)s"),
    N_("its process %(text)s"),
    N_("the application's compare: %(text)s"),
    N_("the application's score: %(text)s"),
    N_("cannot be started: %(text)s"),
    N_("cannot be loaded: %(text)s"),
    N_("answers what nobody understands: %(text)s"),
    N_("did not answer within %(span)s"),
    N_("gets no processor"),
    N_("was ended"),
    N_("was ended by signal %(number)s"),
    N_("ended with status %(number)s"),
    N_("%(device)s has no pin for %(model)s"),
    N_("choose what is to be done"),
    N_("more than %(count)s devices match: narrow the filter"),
    N_("tick the devices, or all that match"),
    N_("expected labels like shift=night"),
    N_("%(matching)s now, and %(count)s were shown: %(text)s. Look again"),
    N_("%(matching)s now, and %(count)s were shown. Look again"),
    N_("%(matching)s now, and other ones were shown. Look again"),
    N_("%(matching)s now, and other ones were shown: %(text)s. Look again"),
    N_("%(names)s joined; %(names2)s left, and others"),
    N_("%(names)s joined; %(names2)s left"),
    N_("%(names)s joined, and others"),
    N_("%(names)s left, and others"),
    N_("%(names)s joined"),
    N_("%(names)s left"),
    N_(
        "another device is called %(device)s; choose another name, or, if it is this one with "
        "a new key, run `pilotwave devices revoke %(device2)s` and enrol with a code of "
        "`pilotwave codes create --device %(device3)s`"
    ),
    N_("another device is or was called %(device)s; an enrolment code is needed to follow it"),
    N_("another device has just taken the name %(device)s"),
    N_("too many devices wait to be accepted; use an enrolment code"),
    N_("this key was revoked: make a new one and ask for an enrolment code"),
    N_("there is no enrolment code %(code)s"),
    N_("%(device)s has used this code; revoke the device instead"),
    N_("this enrolment code is not valid; ask an operator for a new one"),
    N_(
        "%(device)s should try %(model)s %(version)s (variant %(variant)s) in shadow beside "
        "%(version2)s, because %(text)s"
    ),
    N_(
        "rollout %(rollout)s brings it to group %(group)s (%(version)s): chosen in shadow "
        "beside %(version2)s, variant %(variant)s"
    ),
    N_("%(rollout)s tries %(model)s %(version)s in shadow, which no agent can do with itself"),
    N_(
        "%(rollout)s tries %(model)s %(version)s in shadow, and the agent there cannot do "
        "that: update the agent"
    ),
    N_(
        "%(rollout)s tries %(model)s %(version)s in shadow, and this device is told to run no"
        " other version that it could be beside"
    ),
    N_(
        "%(rollout)s tries %(model)s %(version)s in shadow; this device was let in while it "
        "ran %(version2)s, and is told to run %(version3)s"
    ),
    N_(
        "%(rollout)s tries %(model)s %(version)s in shadow; this device joins once it reports"
        " %(version2)s as healthy, and its turn has come"
    ),
)
