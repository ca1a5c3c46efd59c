"""What the server says in English is read in Chinese on the Chinese page."""

from __future__ import annotations

import httpx
import pytest

from pilotwave_agent.apps import shadow_said
from pilotwave_protocol.messages.check_in import ModelReport
from pilotwave_protocol.states import ModelState
from pilotwave_server.attention.service import _TITLES
from pilotwave_server.dashboard import i18n
from pilotwave_server.dashboard.sentences import LONGEST, because, shown, translated
from pilotwave_server.devices import refusals
from pilotwave_server.rollouts.gates.data import Evidence, Outcomes
from pilotwave_server.rollouts.gates.judge_install import judge_install
from pilotwave_server.rollouts.policies.policy import InstallGate
from tests.server.dashboard.conftest import MakePerson, sign_in
from tests.server.device_api.peer import installed
from tests.server.fleet_fixtures import Fleet, only_sqlite

CHINESE = i18n.translations("zh-Hans").gettext


def chinese(sentence: str) -> str:
    """The sentence in Chinese, which must be there and hold no English words."""
    told = translated(sentence, CHINESE)
    assert told is not None, sentence
    assert told != sentence
    return told


def test_titles_and_sentences_of_what_needs_attention_are_translated() -> None:
    for one, many, sentence in _TITLES.values():
        chinese(one)
        assert "1,234" in chinese(many.format(1234))
        if sentence:
            chinese(sentence)
    assert chinese("targets expires in 9 days") == "targets 将在 9 天后过期"
    assert (
        chinese("run `pilotwave renew --role targets`") == "请运行 `pilotwave renew --role targets`"
    )


def test_what_to_do_about_a_refusal_is_translated() -> None:
    for action in {*refusals._ACTIONS.values(), refusals._OTHERWISE.format(device="cam-1")}:
        chinese(action)
    for here in ("2001-01-01T00:00:00Z", ""):
        told = refusals.action("cam-1", "not_yet_valid", here, heard=None)
        assert here in chinese(told)


@pytest.mark.parametrize(
    "outcomes",
    [
        Outcomes(under_way=1),
        Outcomes(healthy=1),
        Outcomes(healthy=900),
        Outcomes(failed=1, under_way=3),
        Outcomes(failed=1),
        Outcomes(failed=9),
    ],
)
def test_each_verdict_of_the_install_gate_is_translated(outcomes: Outcomes) -> None:
    reasons = {"selftest_load": outcomes.failed} if outcomes.failed else {}
    for verdict in judge_install(InstallGate(), Evidence(outcomes=outcomes, reasons=reasons)):
        told = chinese(verdict.sentence)
        assert "device" not in told, told


def test_a_sentence_in_a_sentence_is_translated_too() -> None:
    told = chinese(
        "rollout r1 brings it to group cams (1.1.0): skipped, r1 limits how many devices change "
        "at once; this one waits its turn"
    )
    assert told == "发布 r1 将其带到组 cams(1.1.0):跳过,r1 限制同时更新的设备数量;本设备正在排队"
    told = chinese(
        "cam-1 keeps its detector: no pin, rollout or baseline names a version. cam-1 has not "
        "checked in yet"
    )
    assert told == "cam-1 保留现有的 detector:没有固定、发布或基线指定版本。cam-1 尚未签到"
    told = chinese("no wave of r1 is open yet; this device is due at 12.5 %")
    assert told.endswith("本设备在达到 12.5 % 时轮到")


def test_what_no_pattern_takes_is_marked_as_english_and_escaped() -> None:
    assert shown("<b>odd", CHINESE, "zh-Hans") == '<span lang="en">&lt;b&gt;odd</span>'
    assert shown("an operator pinned it. <b>", CHINESE, "zh-Hans") == "操作员已将其固定。&lt;b&gt;"
    assert shown("an operator <b> pinned it", str, "en") == "an operator &lt;b&gt; pinned it"
    assert shown(None, CHINESE, "zh-Hans") == '<span lang="en"></span>'
    assert translated("rolled back: " + "x" * LONGEST, CHINESE) is None


def test_a_reason_has_words_and_the_devices_own_sentence_follows_where_it_is_not_known() -> None:
    told = because("onnxruntime: <bad>", "selftest_load", CHINESE, "zh-Hans")
    assert told == '模型无法加载 <span lang="en">onnxruntime: &lt;bad&gt;</span>'
    assert because(None, "selftest_load", CHINESE, "zh-Hans") == "模型无法加载"
    assert because(None, "new_reason", CHINESE, "zh-Hans") == "new_reason"
    known = "variant arm is for aarch64; this is x86_64"
    assert because(known, "does_not_fit", CHINESE, "zh-Hans") == chinese(known)
    assert because(None, "selftest_load", str, "en") == "the model does not load"
    assert "&lt;bad&gt;" in because("<bad>", "selftest_load", str, "en")


@only_sqlite
def test_refusals_and_faults_are_chinese_on_the_chinese_page(
    fleet: Fleet, browser: httpx.Client, make_person: MakePerson
) -> None:
    make_person("ada")
    assert sign_in(browser, "ada").status_code == 303
    browser.cookies.set("pilotwave_language", "zh-Hans")
    assert "没有发布 r99" in browser.get("/rollouts/r99").text
    assert "没有设备 nobody" in browser.get("/devices/nobody").text
    assert "选择器,第 4 个字符" in browser.get("/devices?selector=a+%3D").text
    policies = browser.get("/policies").text
    assert "一次全部设备,失败过多时仍会回滚。" in policies
    assert ENGLISH_RULE not in policies


ENGLISH_RULE = "All devices at once"


TRIED = "the application eye says: given up: the candidate was ended by signal 11"


@only_sqlite
def test_a_device_says_what_keeps_a_version_in_shadow_from_being_compared(
    fleet: Fleet, browser: httpx.Client, make_person: MakePerson
) -> None:
    make_person("ada")
    assert sign_in(browser, "ada").status_code == 303
    device = fleet.device("cam-1", line="a")
    fleet.group("cams", "line=a")
    fleet.assign("cams", "1.0.0")
    said = {"current": installed("1.0.0", 1), "candidate": installed("1.1.0", 2), "detail": TRIED}
    device.check_in(ModelReport("detector", ModelState.SHADOWING, **said))  # type: ignore[arg-type]
    assert f"Not compared: {TRIED}" in browser.get("/devices/cam-1").text
    browser.cookies.set("pilotwave_language", "zh-Hans")
    words = "未进行比较: 应用 eye 表示:已放弃:候选版本被信号 11 结束"
    assert words in browser.get("/devices/cam-1").text


@pytest.mark.parametrize(
    "sentence",
    [
        *(shadow_said.NONE_RUNS, shadow_said.NONE_TRIES),
        "the application eye says: its process cannot be started: Permission denied",
        "the application eye says: the serving version did not answer within 1 s",
        "the application eye says: the application's compare: ValueError: no",
        "the application eye says: the candidate cannot be loaded: no such operator",
    ],
)
def test_what_keeps_a_version_from_being_compared_is_translated(sentence: str) -> None:
    chinese(sentence)


@only_sqlite
def test_the_chinese_page_of_a_failed_device_and_the_fleet_speak_chinese(
    fleet: Fleet, browser: httpx.Client, make_person: MakePerson
) -> None:
    make_person("ada")
    assert sign_in(browser, "ada").status_code == 303
    browser.cookies.set("pilotwave_language", "zh-Hans")
    device = fleet.device("cam-1", line="a")
    fleet.group("cams", "line=a")
    fleet.assign("cams", "1.1.0")
    group = browser.get("/groups/cams").text
    assert ">取消指派</button>" in group
    assert "吊销" not in group
    told = {"reason": "selftest_load", "detail": "it does not load"}
    device.check_in(
        ModelReport("detector", ModelState.FAILED, candidate=installed("1.1.0", 2), **told)  # type: ignore[arg-type]
    )
    front = browser.get("/").text
    assert "1 台设备出现故障" in front
    assert "1 device is failing" not in front
    page = browser.get("/devices/cam-1").text
    assert "cam-1 应运行 detector 1.1.0" in page
    assert "它是组 cams 的基线(1.1.0):选中" in page
    assert '<p class="why"><span lang="en">' not in page
