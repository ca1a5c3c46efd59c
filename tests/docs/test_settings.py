"""The table of the agent's settings in docs/device.md is what the code reads."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import MISSING, fields
from pathlib import Path

import pytest

from pilotwave_agent.settings.capture import CaptureSettings
from pilotwave_agent.settings.config import BadConfig, Config, ProbeSettings, RuntimeSettings, parse
from pilotwave_agent.settings.diagnostics import DiagnosticsSettings
from pilotwave_agent.settings.download_limits import OwnLimits
from pilotwave_agent.settings.escalate import EscalateSettings
from pilotwave_agent.settings.facts import FactSettings
from pilotwave_agent.settings.learn import LearnSettings
from pilotwave_agent.settings.push import PushSettings
from pilotwave_agent.settings.tell import Tell
from pilotwave_agent.settings.tracing import TracingSettings

PAGE = Path(__file__).parent.parent.parent / "docs" / "device.md"
# dataclasses whose fields are a section's keys
SECTIONS = {
    "[probe]": ProbeSettings,
    "[limits]": OwnLimits,
    "[push]": PushSettings,
    "[diagnostics]": DiagnosticsSettings,
    "[capture]": CaptureSettings,
    "[escalate]": EscalateSettings,
    "[learn]": LearnSettings,
    "[tracing]": TracingSettings,
    "[facts]": FactSettings,
    "[runtimes.NAME]": RuntimeSettings,
    "[[tell]]": Tell,
}
NESTED = (
    "probe",
    "limits",
    "push",
    "diagnostics",
    "capture",
    "escalate",
    "learn",
    "tracing",
    "facts",
    "runtimes",
    "tell",
)
WORDS = {"waits_on_metered": ("on_metered", "fetch")}  # a yes or no that the file says in words
TEST = "selftest_"
OWN = {"server": "http://127.0.0.1", "device": "cam-1", "data_dir": "."}


def known() -> Iterator[tuple[str, str, object]]:
    """Yield section, key and default of each setting."""
    for f in fields(Config):
        if f.name.startswith(TEST):
            yield "[selftest]", f.name.removeprefix(TEST), f.default
        elif f.name not in NESTED:
            yield "", f.name, f.default
    for section, kind in SECTIONS.items():
        for f in fields(kind):
            if f.name in WORDS:
                yield section, *WORDS[f.name]
            else:
                yield section, f.name, f.default


def told() -> dict[tuple[str, str], str]:
    """Return the table's third column by section and key: the default, as it is written."""
    table = PAGE.read_text().partition("<!-- table: settings")[2].partition("<!-- end")[0]
    found = {}
    for line in table.splitlines()[3:]:
        setting, default = (cell.strip() for cell in line.split("|")[1:3])
        words = re.findall(r"`([^`]+)`", setting)
        found[" ".join(words[:-1]), words[-1]] = default.strip("`")
    return found


def test_the_table_has_each_setting_and_no_other() -> None:
    assert set(told()) == {(section, key) for section, key, _ in known()}


def test_the_table_has_the_defaults() -> None:
    page = told()
    for section, key, default in known():
        written = page[section, key]
        if default is MISSING or default in ("", (), None):
            assert written == "" or written[0].isalpha(), (section, key)
        else:
            assert json.loads(written) == default, (section, key)


@pytest.mark.parametrize("section", ["", "[selftest]", *SECTIONS])
def test_each_key_of_the_table_is_read(section: str) -> None:
    """A key that no code reads is refused, and a value of another kind is."""
    for found, key in told():
        if found != section or (section, key) in (("", "metered"),):
            continue
        wrong: dict[str, object] = {key: {"no": "such value"}}
        inner = {"[probe]": "probe", "[selftest]": "selftest", "[limits]": "limits"}
        inner |= {"[push]": "push", "[diagnostics]": "diagnostics", "[facts]": "facts"}
        inner |= {"[tracing]": "tracing", "[capture]": "capture", "[escalate]": "escalate"}
        inner |= {"[learn]": "learn"}
        if section in inner:
            wrong = {inner[section]: wrong}
        elif section == "[runtimes.NAME]":
            wrong = {"runtimes": {"onnxruntime": wrong}}
        elif section == "[[tell]]":
            wrong = {"tell": [{"kind": "apps", **wrong}]}
        with pytest.raises(BadConfig, match=key) as caught:
            parse({**OWN, **wrong}, base=Path("/"))
        assert "unknown" not in str(caught.value), key
