"""The sample models of tests/data/models as variants in a folder of their own."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from pilotwave_cli.publish.build_manifest import build_variant
from pilotwave_cli.publish.variant_options import VariantOptions
from pilotwave_protocol.manifest import Variant
from pilotwave_protocol.tensortypes import CASES, CASES_FORMAT, CASES_JSON
from tests.agent.runtimes.cases import Case

MODELS = Path(__file__).parent.parent.parent / "data" / "models"


def golden(kind: str) -> dict[str, np.ndarray]:
    """`mlp` (8 x 64 to softmax of 10) or `digits` (8 x 1 x 8 x 8 to logits of 10): x, y, labels."""
    with np.load(MODELS / f"{kind}_golden.npz") as found:
        return dict(found)


def lay_out(
    folder: Path,
    *files: str,
    cases: str | None = "mlp",
    names: tuple[str, str] = ("x", "probs"),
    wishes: VariantOptions | None = None,
) -> Variant:
    """Copy sample files and their golden cases into `folder`; return what publishing makes of it.

    The first file is the entry point. `names` are the input's and the output's.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        shutil.copy(MODELS / file, folder / file)
    if cases:
        found = golden(cases)
        write_cases(folder, {f"input.{names[0]}": found["x"], f"output.{names[1]}": found["y"]})
    wishes = replace(wishes or VariantOptions(), unsafe_format=True, entrypoint=files[0])
    return build_variant("v", folder, wishes).variant


def lay_out_case(folder: Path, case: Case, **changes: str) -> Variant:
    """Lay out one of the sample rows."""
    wishes = replace(VariantOptions(runtime=case.runtime, atol=case.atol, rtol="0"), **changes)  # type: ignore[arg-type]
    return lay_out(folder, *case.files, cases=case.cases, names=case.names, wishes=wishes)


def lay_out_texts(folder: Path, file: str, answers: dict[str, str]) -> None:
    """Copy a language model and its golden cases, the answer to each prompt, into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(MODELS / file, folder)
    tensors = {
        name: {"dtype": "string", "shape": [len(answers)], "data": list(data)}
        for name, data in (("input.prompt", answers), ("output.text", answers.values()))
    }
    said = {"format": CASES_FORMAT, "tensors": tensors}
    (folder / CASES_JSON).write_text(json.dumps(said))


def write_cases(folder: Path, tensors: dict[str, np.ndarray]) -> None:
    save_file({k: np.ascontiguousarray(v) for k, v in tensors.items()}, folder / CASES)
