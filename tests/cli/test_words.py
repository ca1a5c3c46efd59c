"""Durations, pairs, tables: what people type and what they are shown."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from pilotwave_cli import config, output
from pilotwave_cli.durations import Duration, pairs
from pilotwave_cli.errors import CliError


def test_lengths_of_time_are_read() -> None:
    assert Duration.parse("90s") == timedelta(seconds=90)
    assert Duration.parse("2w") == timedelta(days=14)
    assert Duration.parse(" 1h30m ") == timedelta(minutes=90)
    for odd in ("", "h", "1", "0h", "-1h", "1.5h", "1y", "1h 30m", "\u0661h", "999999w"):
        with pytest.raises(CliError, match="expected a time"):
            Duration.parse(odd)


def test_pairs_are_read() -> None:
    assert pairs(["a=1", "b=x=y"], "--label") == {"a": "1", "b": "x=y"}
    for odd in ("a", "=1", ""):
        with pytest.raises(CliError, match="--label"):
            pairs([odd], "--label")


def test_text_from_elsewhere_cannot_drive_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    evil = "\x1b[2J[red]gone[/red]\nnext\u202e"
    output.table("T", [{"a": evil}], [("a", "a")])
    output.facts("F", [("a", evil)])
    output.say(output.plain(evil))
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "\u202e" not in shown
    assert "[red]gone[/red]" in shown


def test_moments_are_shown_as_people_say_them() -> None:
    now = datetime(2026, 1, 31, 12, tzinfo=timezone.utc)
    assert output.when("2026-01-31T11:57:00Z", now) == "3 minutes ago"
    assert "from now" in output.when("2026-02-03T12:00:00Z", now)
    assert output.when(None) == "never"


@pytest.mark.parametrize("url", ["", "fleet", "ftp://x", "https://", "http://a?x=1"])
def test_an_odd_address_is_refused(url: str) -> None:
    with pytest.raises(CliError, match="expected a server"):
        config.check_url(url)


def test_the_configuration_is_for_this_user_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    for name in ("PILOTWAVE_URL", "PILOTWAVE_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(CliError, match="pilotwave login"):
        config.load()
    path = config.save("http://127.0.0.1:1", "pw_a_b")
    assert path.stat().st_mode & 0o777 == 0o600
    assert config.load().url == "http://127.0.0.1:1"
    path.write_text("url = ")
    with pytest.raises(CliError, match="cannot be read"):
        config.load()
