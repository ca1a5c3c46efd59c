"""Random fleets for `resolve`: few names, so that everything meets everything."""

from __future__ import annotations

from hypothesis import strategies as st

from pilotwave_protocol.fields import Scalar
from pilotwave_protocol.manifest import FileEntry, Requires, Variant, VersionManifest
from pilotwave_protocol.trust import facts_asked
from pilotwave_server.registry.service import Released
from pilotwave_server.rollouts.assignments.snapshot import (
    Baseline,
    DeviceView,
    FleetSnapshot,
    GroupInFleet,
    OpenShadow,
    Quarantine,
    RunningRollout,
)
from pilotwave_server.rollouts.policies.policy import Pace
from pilotwave_server.rollouts.states import RolloutState
from pilotwave_server.selector import compile_predicate, parse

MODELS = ["detector", "ocr"]
VERSIONS = ["1.0.0", "1.1.0", "1.2.0"]
GROUPS = (
    GroupInFleet(1, "list"),
    GroupInFleet(2, "berlin", compile_predicate(parse("site=berlin"))),
    GroupInFleet(3, "charged", compile_predicate(parse("battery>20"))),
)
SELECTED_KEYS = {"site", "battery"}


VNNI = Requires(cpu_any=("cpu.avx512_vnni", "cpu.dotprod"))
NEW_APP = Requires(facts={"app": ">=2.1,<3"})


def variant(
    name: str,
    runtime: str = "onnxruntime",
    arch: tuple[str, ...] = (),
    requires: Requires | None = None,
) -> Variant:
    return Variant(
        name=name,
        runtime=runtime,
        entrypoint="model.onnx",
        files=(FileEntry("model.onnx", 3, "ab" * 32),),
        requires=requires or Requires(arch=arch),
    )


def release(
    model: str = "detector",
    version: str = "1.0.0",
    variants: tuple[Variant, ...] = (),
    *,
    yanked: str | None = None,
    denied: str | None = None,
    listed: bool = True,
) -> Released:
    chosen = variants or (variant("onnx-fp32"),)
    return Released(
        model=model,
        version=version,
        target=f"models/{model}/{version}.json",
        sha256="cd" * 32,
        length=100,
        counter=VERSIONS.index(version) + 1 if version in VERSIONS else 9,
        variants=chosen,
        schema=VersionManifest(model, version, 1, chosen).schema,
        yanked=yanked,
        denied=denied,
        listed=listed,
    )


variant_lists = st.sampled_from(
    [
        (variant("onnx-fp32"),),
        (variant("arm", arch=("aarch64",)), variant("onnx-fp32")),
        (variant("arm", arch=("aarch64",)),),
        (variant("vino", runtime="openvino"),),
        (variant("int8", requires=VNNI), variant("onnx-fp32")),
        (variant("onnx-fp32", requires=NEW_APP),),
    ]
)
TERMS = {"share": 0.05, "cpu": 0.1, "min_calls": 500}
switched = st.sampled_from([frozenset({"cam-1"}), frozenset({"cam-1"}), frozenset()])
shadows = st.none() | st.builds(
    OpenShadow, st.just(TERMS), named=st.just(frozenset({"cam-1"})), lets_in=st.booleans()
)
reasons = st.none() | st.just("bad")
models = st.sampled_from(MODELS)
versions = st.sampled_from(VERSIONS)
group_ids = st.sampled_from([1, 2, 3])

devices_facts: st.SearchStrategy[dict[str, Scalar]] = st.fixed_dictionaries(
    {},
    optional={
        "arch": st.sampled_from(["aarch64", "x86_64"]),
        "runtime.onnxruntime": st.just("1.20"),
        "runtime.openvino": st.just("2025.1"),
        "battery": st.integers(0, 40),
        "agent.manifest": st.sampled_from([1, 2, 2, 2]),
        "shadows": st.just(True),
        "cpu.avx512_vnni": st.just(True),
        "app": st.sampled_from(["2.4.1", "3.0", "no version"]),
    },
)
devices_labels = st.fixed_dictionaries(
    {}, optional={"site": st.sampled_from(["berlin", "paris"]), "colour": st.just("red")}
)


@st.composite
def snapshots(draw: st.DrawFn) -> FleetSnapshot:
    known = {
        (m, v): release(
            m,
            v,
            draw(variant_lists),
            yanked=draw(reasons),
            denied=draw(reasons),
            listed=bool(draw(st.integers(0, 9))),
        )
        for m in MODELS
        for v in VERSIONS
        if draw(st.integers(0, 9))
    }
    baselines = {
        m: tuple(
            Baseline(g, f"group {g}", m, draw(versions), 100 - n)
            for n, g in enumerate(draw(st.lists(group_ids, max_size=4)))
        )
        for m in draw(st.sets(models))
    }
    rollouts = {
        m: tuple(
            RunningRollout(
                f"r{n}",
                n,
                g,
                m,
                draw(versions),
                state=draw(
                    st.sampled_from(
                        [RolloutState.RUNNING, RolloutState.PAUSED, RolloutState.ABORTED]
                    )
                ),
                pace=Pace(max_in_flight=draw(st.sampled_from([None, 1]))),
                named=draw(switched),
                shadow=draw(shadows),
            )
            for n, g in enumerate(draw(st.lists(group_ids, max_size=2)))
        )
        for m in draw(st.sets(models, max_size=1))
    }
    quarantines = draw(
        st.lists(
            st.builds(Quarantine, st.none() | group_ids, models, versions, st.just("failed")),
            max_size=2,
        )
    )
    return FleetSnapshot(
        fleet="f",
        revision=100,
        groups=GROUPS,
        versions=known,
        floors={"detector": draw(st.sampled_from([0, 0, 2]))},
        baselines=baselines,
        rollouts=rollouts,
        quarantines=tuple(quarantines),
        asked=facts_asked(v for release in known.values() for v in release.variants),
    )


def device_in(
    snapshot: FleetSnapshot,
    labels: dict[str, str],
    facts: dict[str, Scalar],
    *,
    name: str = "cam-1",
    member_of: frozenset[int] = frozenset(),
    pins: dict[str, str] | None = None,
    leases: frozenset[int] = frozenset(),
    shadows: frozenset[tuple[int, str]] = frozenset(),
) -> DeviceView:
    return DeviceView(
        name=name,
        groups=snapshot.groups_of(labels, facts, member_of),
        facts=facts,
        pins=pins or {},
        attempts={},
        leases=leases,
        shadows=shadows,
    )


members = st.frozensets(st.just(1))
pin_sets = st.dictionaries(models, versions, max_size=2)
lease_sets = st.frozensets(st.integers(0, 1))
let_in = st.dictionaries(st.integers(0, 1), versions).map(lambda d: frozenset(d.items()))
names = st.sampled_from(["cam-1", "zoo-1"])
