"""The version that a plan is based on: its files here, and what it answers to the desk's data."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pilotwave_cli.client import Api
from pilotwave_cli.errors import CliError, Failed
from pilotwave_cli.optimize.answers import answers_of
from pilotwave_cli.optimize.data import Data, check_fits, read_data
from pilotwave_cli.optimize.layout import Array
from pilotwave_cli.publish.ask_agent import AGENT, TIMEOUT_S, find_agent
from pilotwave_cli.publish.build_manifest import Built, build_variant
from pilotwave_cli.publish.lay_out import laid_out
from pilotwave_cli.publish.variant_options import VariantOptions
from pilotwave_protocol.names import check_model, check_version

_LONGEST = 0.95
"""The share of the publisher's examples that are not cut."""


@dataclass(frozen=True)
class Judged:
    """What a model answers to labelled data: its embedding of each row, and its scores, which are
    the output `output`."""

    data: Data
    labels: NDArray[np.int64]
    embeddings: Array
    scores: Array
    output: str

    @property
    def longest(self) -> float:
        """How long an embedding counts: a longer one is cut to it."""
        return float(np.quantile(np.linalg.norm(self.embeddings, axis=1), _LONGEST))


def labelled(path: Path) -> tuple[Data, NDArray[np.int64]]:
    """Read data with labels. Raises `CliError`."""
    data = read_data(path)
    if data.labels is None:
        raise CliError(f"{path}: expected `labels`, the class of each input")
    return data, data.labels


@contextmanager
def built_from(source: Path, name: str) -> Iterator[Built]:
    """Describe a model's file or folder as a variant."""
    with laid_out({name: source}) as paths:
        yield build_variant(name, paths[name], VariantOptions(), with_cases=False)


def check_is_published(api: Api, made: Built, model: str, version: str, variant: str) -> str:
    """Check that the file at the desk is the published variant's; return the manifest's digest."""
    path = f"/models/{check_model(model)}/versions/{check_version(version)}"
    found: dict[str, Any] = api.get(path)
    listed = next((v for v in found["variants"] if v["name"] == variant), None)
    if listed is None:
        known = ", ".join(v["name"] for v in found["variants"])
        raise Failed(f"{model} {version} has no variant {variant}; it has {known}")
    here = next(f.sha256 for f in made.variant.files if f.path == made.variant.entrypoint)
    if here not in {file["sha256"] for file in listed["files"]}:
        raise Failed(f"{made.sources[here]}: not the file that was published in {variant}")
    return str(found["sha256"])


def judged(made: Built, path: Path, embedding: str) -> Judged:
    """Have the model answer labelled data. Raises `CliError`."""
    data, labels = labelled(path)
    check_fits(data, made.variant.inputs)
    agent = find_agent()
    if agent is None:
        raise CliError(f"{AGENT} is not installed here: pip install 'pilotwave[onnxruntime]'")
    outputs = dict(answers_of(agent, made, data.inputs, TIMEOUT_S).outputs)
    found = outputs.pop(embedding, None)
    if found is None or found.ndim != 2:
        words = ", ".join(f"{n} {list(a.shape)}" for n, a in outputs.items())
        raise CliError(f"expected an output {embedding} with one row an input; got {words}")
    wide = [(n, a) for n, a in outputs.items() if a.ndim == 2 and a.dtype.kind == "f"]
    if len(wide) != 1:
        raise CliError(f"expected one output of scores beside {embedding}; got {len(wide)}")
    ((output, scores),) = wide
    return Judged(data, labels, found, scores, output)
