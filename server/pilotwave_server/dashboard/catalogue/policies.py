"""What policies say of themselves, and what is wrong with one."""

from __future__ import annotations

from pilotwave_server.dashboard.words import N_

SENTENCES: tuple[str, ...] = (
    N_(
        "In shadow where devices can, then on one, then on 1, 10, 50 and 100 percent, with hours "
        "of soaking between."
    ),
    N_("5, 25 and 100 percent, with half an hour of soaking between."),
    N_("All devices at once, still taken back if too many fail."),
    N_("10 and 100 percent, changing only from 1 to 5 at night by each device's own time."),
    N_("line %(line)s, %(path)s: %(said)s (and %(more)s more)"),
    N_("line %(line)s, the policy: %(said)s (and %(more)s more)"),
    N_("line %(line)s, the policy: %(said)s"),
    N_("line %(line)s, %(path)s: %(said)s"),
    N_("the policy: %(said)s (and %(more)s more)"),
    N_("the policy: %(said)s"),
    N_("unknown key; did you mean `%(key)s`?"),
    N_("unknown key; expected one of %(names)s"),
    N_("expected a mapping of `key: value`; got %(shown)s"),
    N_("expected either `%(key)s` or `%(key2)s`, not both"),
    N_("expected a value; it is missing"),
    N_("expected at most %(most)s items; got %(count)s"),
    N_("expected each once; %(shown)s is there twice"),
    N_("expected each key once; it is there twice"),
    N_("expected words as keys"),
    N_("expected no tag; got %(shown)s"),
    N_("expected exactly one of %(names)s; got %(shown)s"),
    N_("none"),
    N_("%(key)s and %(key2)s"),
    N_("%(key)s and %(key2)s and %(key3)s"),
    N_("expected `shadow` in its wave: only there both versions see the same calls"),
    N_("expected one of %(names)s; a shadow wave has no live metrics to gate"),
    N_("true, for a shadow compares pairs only"),
    N_("%(key)s and %(key2)s and %(key3)s and %(key4)s"),
    N_("%(key)s and %(key2)s and %(key3)s and %(key4)s and %(key5)s"),
    N_("expected at least one wave"),
    N_("expected shadow waves before all waves that switch"),
    N_("expected the last wave to switch its devices: no `shadow`"),
    N_("expected the last wave to end at 100%%: `percent: 100%%`"),
    N_(
        "expected more than the %(before)s of the wave before, for waves only add devices; got "
        "%(after)s"
    ),
    N_("expected names that differ; `%(name)s` is there twice"),
    N_("expected `ramp_start` beside it"),
    N_("expected `%(name)s`, as it is asked for; got `%(name2)s`"),
    N_("expected at most %(most)s characters; got %(count)s"),
    N_("expected at most %(most)s levels"),
    N_("expected YAML or JSON; expected no anchor (&) or alias (*)"),
    N_("expected YAML or JSON; %(text)s"),
    N_("expected a time of cron, as `0 2 * * *`; %(text)s in %(shown)s"),
    N_("expected a time that comes; %(shown)s never does"),
    N_("expected %(said)s; got %(shown)s"),
    N_("a mapping"),
    N_("a list"),
    N_("nothing"),
    N_("true"),
    N_("false"),
    N_("a time from %(span)s to %(span2)s, as `90s`, `30m`, `1h30m` or `2d`"),
    N_("a whole number from %(low)s to %(high)s"),
    N_("a number from %(low)s to %(high)s"),
    N_("a share from %(low)s to %(high)s, as `5%%` or 0.05"),
    N_("a percentage from %(low)s to %(high)s"),
    N_("a whole percentage from 0%% to 100%%"),
    N_("true or false"),
    N_("`%(word)s`"),
    N_("`%(word)s` or `%(word2)s`"),
    N_("`%(word)s` or `%(word2)s` or `%(word3)s`"),
    N_("a mapping of `figure: bound`"),
    N_("expected at most %(most)s bounds; got %(count)s"),
    N_('expected a bound as ">=0.955" or "<=64"; got %(shown)s'),
    N_("`%(word)s` or `%(word2)s` or `%(word3)s` or `%(word4)s`"),
    N_("one line of at most %(most)s characters"),
    N_(
        "a name of small letters and digits, joined by single '.', '_' or '-', at most 64 "
        "characters"
    ),
    N_("`mean`, or a quantile as `p50`, `p95` or `p99.9`"),
    N_("the five fields of cron (minute, hour, day, month, weekday), as `0 2 * * *`"),
    N_("`device`, or a zone as `Europe/Berlin`"),
    N_("there is no policy %(policy)s; built in are %(names)s"),
    N_("expected exactly one of `policy` (a name), `document` and `text`"),
    N_("expected either `document` or `text`"),
    N_("%(path)s: %(said)s (and %(more)s more)"),
)
