"""What devices say of themselves, on trees as real boards have them."""

from __future__ import annotations

from pathlib import Path

import pytest

from pilotwave_agent.facts import facts_of, own_facts, read_facts
from pilotwave_agent.read_conditions import look_around, told
from pilotwave_agent.settings import config as settings
from pilotwave_protocol.fields import Scalar
from pilotwave_protocol.messages.facts import MAX_FACTS
from pilotwave_protocol.names import check_fact_key
from tests.agent.trees import ROUTES, put, route

ANY = "0" * 32
SUPPLY = "sys/class/power_supply"


def usb(vendor: str, product: str) -> dict[str, str]:
    top = "sys/bus/usb/devices/1-1"
    return {f"{top}/idVendor": f"{vendor}\n", f"{top}/idProduct": f"{product}\n"}


def pci(vendor: str, device: str, kind: str = "0x088000") -> dict[str, str]:
    top = "sys/bus/pci/devices/0000:01:00.0"
    return {
        f"{top}/vendor": f"0x{vendor}\n",
        f"{top}/device": f"0x{device}\n",
        f"{top}/class": f"{kind}\n",
    }


def battery(name: str = "BAT0", **more: str) -> dict[str, str]:
    return {f"{SUPPLY}/{name}/{key}": f"{value}\n" for key, value in more.items()}


def accel(driver: str) -> dict[str, str]:
    return {"sys/class/accel/accel0/device/uevent": f"DRIVER={driver}\nMODALIAS=of:Nnpu\n"}


ROCKCHIP = {"proc/device-tree/compatible": "radxa,rock-5a\0rockchip,rk3588s\0"}
ORIN = {
    "proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit\0",
    "proc/device-tree/compatible": "nvidia,p3768-0000+p3767-0005\0nvidia,tegra234\0",
    "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic\n",
    "proc/cpuinfo": "processor\t: 0\nFeatures\t: fp asimd fphp asimdhp asimddp i8mm bf16\n",
    "proc/meminfo": "MemTotal:        7802716 kB\n",
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
    "sys/class/thermal/thermal_zone0/temp": "48937\n",
    "sys/class/thermal/thermal_zone1/type": "gpu-thermal\n",
    "sys/class/thermal/thermal_zone1/temp": "-256000\n",
    "sys/class/thermal/thermal_zone2/type": "PMIC-Die\n",
    "sys/class/thermal/thermal_zone2/temp": "100000\n",
}
NANO = {
    "proc/device-tree/compatible": "nvidia,p3450-0000\0nvidia,tegra210\0",
    "etc/nv_tegra_release": "# R32 (release), REVISION: 7.1, GCID: 29818004\n",
}
THOR = {
    "proc/device-tree/compatible": "nvidia,tegra264\0",
    "var/lib/dpkg/status": "Package: nvidia-l4t-core\nStatus: ok\nVersion: 38.2.0-2025\n\n",
}

# a tree and what must be among its facts; None: that fact must not be there
TREES: list[tuple[str, dict[str, str], dict[str, Scalar | None]]] = [
    (
        "an empty tree says little and breaks nothing",
        {},
        {"battery": None, "power": None, "network.metered": None, "temperature_c": None},
    ),
    (
        "a Jetson Orin Nano",
        ORIN,
        {
            "hw": "NVIDIA Jetson Orin Nano Developer Kit",
            "jetson": "orin",
            "jetson.sm": "87",
            "jetson.l4t": "36.4.3",
            "jetson.jetpack": 6,
            "accelerator.cuda": True,
            "cpu.dotprod": True,
            "cpu.i8mm": True,
            "cpu.fp16": True,
            "memory_mb": 7619,
            "temperature_c": 40,
        },
    ),
    ("a Jetson Nano", NANO, {"jetson": "nano", "jetson.l4t": "32.7.1", "jetson.jetpack": 4}),
    ("a Thor, known by its package", THOR, {"jetson": "thor", "jetson.l4t": "38.2.0-2025"[:6]}),
    (
        "a Tegra to come",
        {"proc/device-tree/compatible": "nvidia,tegra999\0"},
        {"jetson": "tegra999"},
    ),
    ("a Coral stick before its first use", usb("1a6e", "089a"), {"accelerator.coral": True}),
    ("and after it", usb("18d1", "9302"), {"accelerator.coral": True}),
    ("a Coral card", pci("1ac1", "089a"), {"accelerator.coral": True}),
    (
        "a Hailo-8 or Hailo-8L, which share a number",
        pci("1e60", "2864"),
        {"accelerator.hailo": True, "accelerator.hailo8": True, "accelerator.hailo8l": True},
    ),
    (
        "a Hailo-10H",
        pci("1e60", "45c4"),
        {"accelerator.hailo": True, "accelerator.hailo10h": True, "accelerator.hailo8": None},
    ),
    ("a Hailo seen by its node", {"dev/hailo0": ""}, {"accelerator.hailo": True}),
    ("an Intel NPU", pci("8086", "7d1d", "0x120000"), {"accelerator.intel_npu": True}),
    ("an Intel iGPU", pci("8086", "46a6", "0x030000"), {"accelerator.intel_gpu": True}),
    (
        "an Intel NPU seen by its driver",
        {"sys/class/accel/accel0/device/vendor": "0x8086\n"},
        {"accelerator.intel_npu": True},
    ),
    ("an NVIDIA card", pci("10de", "2684", "0x030000"), {"accelerator.cuda": True}),
    (
        "an NVIDIA audio function is none",
        pci("10de", "22ba", "0x040300"),
        {"accelerator.cuda": None},
    ),
    ("a Rockchip NPU", {"dev/rknpu": ""}, {"accelerator.rknpu": True}),
    (
        "a Rockchip NPU of the vendor's kernel, and its chip",
        ROCKCHIP | {"sys/bus/platform/drivers/RKNPU/fdab0000.npu": ""},
        {"accelerator.rknpu": True, "accelerator.rk3588": True, "accelerator.rk3588s": True},
    ),
    (
        "a Rockchip NPU of Linux itself",
        ROCKCHIP | accel("rocket"),
        {"accelerator.rknpu": True, "accelerator.rk3588": True},
    ),
    (
        "a chip that runs its twin's files",
        {"proc/device-tree/compatible": "radxa,e25\0rockchip,rk3568\0", "dev/rknpu": ""},
        {"accelerator.rk3568": True, "accelerator.rk3566": True},
    ),
    (
        "a Rockchip board whose NPU has no driver",
        ROCKCHIP | {"sys/bus/platform/drivers/RKNPU/bind": ""},
        {"accelerator.rknpu": None, "accelerator.rk3588": None},
    ),
    ("an Ethos-U", {"dev/ethosu0": ""}, {"accelerator.ethosu": True}),
    (
        "an i.MX 93, whose Ethos-U has one size",
        {"dev/ethosu0": "", "proc/device-tree/compatible": "fsl,imx93-11x11-evk\0fsl,imx93\0"},
        {"accelerator.ethosu": True, "accelerator.ethos-u65-256": True},
    ),
    ("an Ethos-U of Linux itself", accel("ethosu"), {"accelerator.ethosu": True}),
    ("an Intel NPU by its driver's name", accel("intel_vpu"), {"accelerator.intel_npu": True}),
    ("a Hexagon by its node", {"dev/fastrpc-cdsp-secure": ""}, {"accelerator.hexagon": True}),
    (
        "a Hexagon by its processor",
        {"sys/class/remoteproc/remoteproc0/name": "adsp\n"}
        | {"sys/class/remoteproc/remoteproc1/name": "cdsp\n"},
        {"accelerator.hexagon": True},
    ),
    (
        "an audio processor is no Hexagon for models",
        {"sys/class/remoteproc/remoteproc0/name": "adsp\n"},
        {"accelerator.hexagon": None},
    ),
    (
        "a battery that discharges",
        battery(type="Battery", capacity="83", status="Discharging"),
        {"battery": 80, "power": "battery"},
    ),
    (
        "a battery that charges",
        battery(type="Battery", capacity="83", status="Charging"),
        {"battery": 80, "power": "mains"},
    ),
    (
        "a battery held at its limit runs on mains",
        battery(type="Battery", capacity="80", status="Not charging"),
        {"power": "mains"},
    ),
    (
        "a battery that tells its energy alone",
        battery(type="Battery", energy_now="21000000", energy_full="50000000", status="Unknown"),
        {"battery": 40, "power": "battery"},
    ),
    (
        "the weakest of two batteries counts",
        {
            **battery("BAT0", type="Battery", capacity="90", status="Discharging"),
            **battery("BAT1", type="Battery", capacity="12", status="Discharging"),
        },
        {"battery": 10},
    ),
    (
        "a mouse's battery is none of ours",
        battery("hid", type="Battery", scope="Device", capacity="5", status="Discharging"),
        {"battery": None, "power": None},
    ),
    ("power over USB", battery("usb", type="USB", online="1"), {"power": "mains"}),
    ("an unplugged charger", battery("AC", type="Mains", online="0"), {"power": None}),
    ("nonsense in a battery", battery(type="Battery", capacity="x"), {"battery": None}),
    ("a cable", {"proc/net/route": ROUTES + route("eth0")}, {"network.metered": False}),
    ("a modem", {"proc/net/route": ROUTES + route("wwan0")}, {"network.metered": True}),
    (
        "the cheaper route counts",
        {"proc/net/route": ROUTES + route("wwan0", 700) + route("eth0", 100)},
        {"network.metered": False},
    ),
    (
        "a modem over IPv6 alone",
        {"proc/net/ipv6_route": f"{ANY} 00 {ANY} 00 {'f' * 32} 00000400 1 0 00000003 wwan0"},
        {"network.metered": True},
    ),
    ("routes cut short", {"proc/net/route": "Iface\nwwan0\t0"}, {"network.metered": None}),
    ("a zone by name", {"etc/timezone": "Asia/Tokyo\n"}, {"timezone": "Asia/Tokyo"}),
    (
        "a zone by link",
        {"etc/localtime": "-> /usr/share/zoneinfo/Europe/Berlin"},
        {"timezone": "Europe/Berlin"},
    ),
    (
        "a control group's limit",
        {"proc/meminfo": "MemTotal: 8000000 kB\n", "sys/fs/cgroup/memory.max": "536870912\n"},
        {"memory_mb": 512},
    ),
    (
        "no limit",
        {"proc/meminfo": "MemTotal: 1024 kB\n", "sys/fs/cgroup/memory.max": "max\n"},
        {"memory_mb": 1},
    ),
    ("memory without a number", {"proc/meminfo": "MemTotal:\n"}, {"memory_mb": None}),
    (
        "escape codes in a board's name",
        {"proc/device-tree/model": "Pi\x1b[2J 5\0"},
        {"hw": "Pi[2J 5"},
    ),
]


@pytest.mark.parametrize(("files", "expected"), [t[1:] for t in TREES], ids=[t[0] for t in TREES])
def test_facts(tmp_path: Path, files: dict[str, str], expected: dict[str, Scalar | None]) -> None:
    facts = read_facts(tmp_path, root=put(tmp_path / "root", files))
    assert {key: facts.get(key) for key in expected} == expected
    assert len(facts) < MAX_FACTS
    for key, value in facts.items():
        check_fact_key(key)
        assert value != ""
        assert not isinstance(value, str) or value.isprintable()


def test_this_machine_can_be_described(tmp_path: Path) -> None:
    facts = read_facts(tmp_path)
    assert facts["arch"] in ("x86_64", "aarch64")
    assert facts["memory_mb"]


def test_settings_stand_before_what_is_found(tmp_path: Path) -> None:
    root = put(tmp_path / "root", {"proc/net/route": ROUTES + route("eth0")})
    said = {"server": "http://x", "device": "a", "data_dir": ".", "metered": True}
    config = settings.parse({**said, "timezone": "Asia/Tokyo"}, base=tmp_path)
    facts = facts_of(config, root=root)
    assert facts["network.metered"] is True
    assert facts["timezone"] == "Asia/Tokyo"
    world = look_around(config, 0.0, root=root)
    assert (world.metered, world.zone) == (True, "Asia/Tokyo")


@pytest.mark.parametrize(
    ("said", "fact"),
    [
        ({}, None),
        ({"max_check_in_interval_s": 86_400}, None),  # no server asks for more
        ({"max_check_in_interval_s": 60}, 60),
        ({"max_check_in_interval_s": 1.5}, 2),
    ],
)
def test_a_cap_on_the_check_in_interval_is_a_fact(
    tmp_path: Path, said: dict[str, object], fact: int | None
) -> None:
    given = {"server": "http://x", "device": "a", "data_dir": "."}
    config = settings.parse({**given, **said}, base=tmp_path)
    assert own_facts(config).get("agent.max_check_in_interval_s") == fact


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"timezone": "Mars/Olympus"}, "a zone such as Europe/Berlin"),
        ({"profile": "turbo"}, "one of standard, battery"),
        ({"metered": "yes"}, "true or false"),
    ],
)
def test_a_wrong_setting_says_what_is_expected(
    tmp_path: Path, wrong: dict[str, object], words: str
) -> None:
    said = {"server": "http://x", "device": "a", "data_dir": "."}
    with pytest.raises(settings.BadConfig, match=words):
        settings.parse({**said, **wrong}, base=tmp_path)


def test_an_application_says_that_it_is_busy(tmp_path: Path) -> None:
    said = {"server": "http://x", "device": "a", "data_dir": "."}
    config = settings.parse(said, base=tmp_path)
    root = put(tmp_path / "root", {"proc/loadavg": "0.01 0 0 1/1 1\n"})
    assert told(look_around(config, 0.0, root=root))["busy"] is False
    (tmp_path / "busy").write_text("")
    assert told(look_around(config, 0.0, root=root))["busy"] is True
    (tmp_path / "busy").unlink()
    put(root, {"proc/loadavg": "64.00 0 0 1/1 1\n"})
    assert told(look_around(config, 0.0, root=root))["busy"] is True
