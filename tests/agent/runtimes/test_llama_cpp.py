"""GGUF files by llama.cpp itself: a language model of 12 tensors whose weights are noise."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pilotwave_agent import runtimes
from pilotwave_agent.runtimes import Options, Runner
from pilotwave_agent.runtimes.base import CannotLoad
from pilotwave_agent.selftest import TestLimits, run_selftest
from pilotwave_cli.publish.build_manifest import build_variant
from pilotwave_cli.publish.variant_options import VariantOptions
from pilotwave_protocol.errors import RefusedError
from pilotwave_protocol.states import Reason
from tests.agent.runtimes.samples import MODELS, lay_out_texts

pytestmark = pytest.mark.needs("llama.cpp")
FILE = "tiny_llama.gguf"
LIMITS = TestLimits(60, 1024)


def opened() -> Runner:
    return runtimes.load(MODELS, entrypoint=FILE, runtime="llama.cpp", options=Options())


@pytest.fixture
def model() -> Iterator[Runner]:
    found = opened()
    yield found
    found.close()


def asked(model: Runner, *prompts: str, **more: int) -> list[str]:
    feeds = {"prompt": np.array(prompts, object), **{k: np.array(v) for k, v in more.items()}}
    return list(model.run(feeds)["text"])


def test_a_prompt_is_always_gone_on_with_in_the_same_way(model: Runner) -> None:
    first, second = asked(model, "once upon a time", "there was")
    assert first != second
    again = opened()
    assert asked(again, "there was", "once upon a time") == [second, first]
    again.close()


def test_an_application_may_say_how_many_tokens_it_wants(model: Runner) -> None:
    assert len(asked(model, "a", max_tokens=4)[0]) <= 4 < len(asked(model, "a")[0])


def test_its_server_can_be_reached_by_nobody_else(model: Runner) -> None:
    """It listens on no port: what is open on this machine is the same without it."""
    before = listening()
    more = opened()
    assert listening() == before
    more.close()


def listening() -> set[str]:
    lines = Path("/proc/self/net/tcp").read_text().splitlines()[1:]
    ours = {f"socket:[{line.split()[9]}]" for line in lines if line.split()[3] == "0A"}
    return {str(fd.readlink()) for fd in Path("/proc/self/fd").iterdir() if fd.is_symlink()} & ours


def test_a_port_that_is_open_would_be_seen() -> None:
    before = listening()
    with socket.create_server(("127.0.0.1", 0)):
        assert listening() - before


def test_a_prompt_that_is_too_long_says_so(model: Runner) -> None:
    with pytest.raises(ValueError, match="context size"):
        asked(model, "a" * 500)
    assert asked(model, "a")  # and the next one is answered


def test_a_file_that_llama_cpp_will_not_have_is_no_model(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes((MODELS / FILE).read_bytes().replace(b"ffn_up", b"ffn_UP"))
    with pytest.raises(CannotLoad, match="would not open"):
        runtimes.load(tmp_path, entrypoint=FILE, runtime="llama.cpp")


def test_a_model_with_golden_texts_passes_its_self_test(tmp_path: Path, model: Runner) -> None:
    lay_out_texts(tmp_path, FILE, dict(zip("ab", asked(model, "a", "b"), strict=True)))
    made = build_variant("v", tmp_path, VariantOptions()).variant
    assert (made.runtime, made.format, made.precision) == ("llama.cpp", "gguf", "fp32")
    assert [(t.name, t.dtype, t.shape) for t in made.inputs] == [("prompt", "string", (-1,))]
    figures = run_selftest(tmp_path, made, LIMITS)
    assert (figures.cases, figures.confinement) == (2, "full")


def test_another_answer_than_the_golden_one_is_refused(tmp_path: Path) -> None:
    lay_out_texts(tmp_path, FILE, {"a": "nothing that noise would say"})
    made = build_variant("v", tmp_path, VariantOptions()).variant
    with pytest.raises(RefusedError) as refused:
        run_selftest(tmp_path, made, LIMITS)
    assert refused.value.reason is Reason.SELFTEST_MISMATCH
