"""What gates say of a version."""

from __future__ import annotations

from pilotwave_server.dashboard.words import N_

SENTENCES: tuple[str, ...] = (
    N_("no device has finished yet; %(text)s"),
    N_("1 device is still installing"),
    N_("%(count)s devices are still installing"),
    N_("%(bad)s of 1 device failed; the limit is %(limit)s. %(text)s"),
    N_("%(bad)s of %(all)s devices failed; the limit is %(limit)s. %(text)s"),
    N_("%(bad)s of 1 device failed (%(reasons)s); the limit is %(limit)s. %(text)s"),
    N_("%(bad)s of %(all)s devices failed (%(reasons)s); the limit is %(limit)s. %(text)s"),
    N_("1 device is healthy: too few to tell"),
    N_("%(count)s devices are healthy: too few to tell"),
    N_("1 device is healthy: the failure rate is below %(bound)s"),
    N_("%(count)s devices are healthy: the failure rate is below %(bound)s"),
    N_("This may still be chance; %(text)s"),
    N_("This may be chance, and no device is still installing that could tell"),
    N_("A good version would be stopped by chance in fewer than 1 in %(count)s rollouts"),
    N_("no gate"),
    N_(
        "%(statistic)s of %(metric)s: %(bad)s of %(all)s windows on %(devices)s are worse than "
        "before by more than %(limit)s, typically by %(change)s"
    ),
    N_(
        "%(statistic)s of %(metric)s is %(change)s %(way)s %(than)s on %(devices)s with the "
        "version, %(change2)s %(way2)s on %(without)s without it; the limit is %(limit)s; at "
        "least %(devices2)s would have to lie to change this"
    ),
    N_(
        "%(statistic)s of %(metric)s is %(change)s %(way)s %(than)s on %(devices)s with the "
        "version, and no device without it reports any; the limit is %(limit)s; at least "
        "%(devices2)s would have to lie to change this"
    ),
    N_("better"),
    N_("worse"),
    N_("than before"),
    N_("than usual"),
    N_(
        "Less than a quarter of all devices report %(slice)s, and they report it themselves, "
        "so a person has to decide"
    ),
    N_("The gate needs %(said)s, and no other device is still installing"),
    N_("The gate needs %(said)s"),
    N_("%(devices)s (so far %(count)s)"),
    N_("%(windows)s (so far %(count)s)"),
    N_("%(devices)s (so far %(count)s) and %(windows)s (so far %(count2)s)"),
    N_("%(count)s of the %(all)s devices with the version have reported"),
    N_("The gate waits for more, so that the first few do not decide"),
    N_("This may still be chance"),
    N_("Too few devices show this to exclude false reports"),
    N_("%(said)s, and more windows will not settle it"),
    N_("More windows or devices will tell"),
    N_("no device kept the version, so none can report %(metric)s"),
    N_("no device runs the version yet, so none can report %(metric)s"),
    N_(
        "no device has reported %(metric)s for the new version yet; the first device has run "
        "it for %(span)s, and the gate waits %(span2)s more"
    ),
    N_(
        "no device has reported %(metric)s for the new version yet, %(span)s after the first "
        "device took it (devices on the old version do)"
    ),
    N_(
        "no device has reported %(metric)s for the new version yet, %(span)s after the first "
        "device took it (nor for the old one)"
    ),
    N_("Does the application record it under this name?"),
    N_(
        "the answers differ in %(change)s of %(calls)s on %(devices)s; the limit is %(limit)s; "
        "at least %(devices2)s would have to lie to change this"
    ),
    N_(
        "the version fails in %(change)s of %(calls)s on %(devices)s; the limit is %(limit)s; "
        "at least %(devices2)s would have to lie to change this"
    ),
    N_(
        "the version takes %(change)s longer in %(calls)s on %(devices)s; the limit is "
        "%(limit)s; at least %(devices2)s would have to lie to change this"
    ),
    N_(
        "the version takes %(change)s shorter in %(calls)s on %(devices)s; the limit is "
        "%(limit)s; at least %(devices2)s would have to lie to change this"
    ),
    N_(
        "the score is %(change)s lower in %(calls)s on %(devices)s; the limit is %(limit)s; at "
        "least %(devices2)s would have to lie to change this"
    ),
    N_(
        "the score is %(change)s higher in %(calls)s on %(devices)s; the limit is %(limit)s; at"
        " least %(devices2)s would have to lie to change this"
    ),
    N_(
        "the version takes %(change)s times the memory in %(calls)s on %(devices)s; the limit "
        "is %(limit)s; at least %(devices2)s would have to lie to change this"
    ),
    N_("No user has met the version"),
    N_("%(devices)s began to compare the version with the one in use"),
    N_("%(devices)s with %(count)s compared calls each (so far %(count2)s)"),
    N_("The gate needs %(said)s, and no other device compares any"),
    N_("no device keeps the version in shadow, so none can report %(metric)s"),
    N_("no device has the version in shadow yet, so none can report %(metric)s"),
    N_(
        "no device has reported %(metric)s yet; the first one has had the version in shadow for"
        " %(span)s, and the gate waits %(span2)s more"
    ),
    N_(
        "no device has reported %(metric)s yet, %(span)s after the first one had the version in"
        " shadow"
    ),
    N_(
        "%(devices)s dropped calls: busy, hot, low on battery or beyond the share of the "
        "processor that the policy allows"
    ),
    N_("Does an application there take part, by LiveModel or its socket?"),
)
