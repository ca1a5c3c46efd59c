"""llama.cpp, as xllamacpp brings it: a GGUF file goes on with a prompt, always the same way.

Input `prompt`, output `text`, one of each per case. The likeliest token is taken each time, so that
golden cases can hold the answer. Its server comes with it; here it listens on a Unix socket in a
folder that nobody else may enter, and is called directly.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import xllamacpp

from pilotwave_agent.runtimes.base import Array, CannotLoad, Info, Options, Tensor
from pilotwave_protocol.tensortypes import STRING

_CONTEXT = 4096  # at most; a model of fewer says so
_TOKENS = 32
_LONGEST = "max_tokens"
_QUIET = -1


class Completion:
    """A loaded model, which answers one prompt at a time."""

    inputs = (Tensor("prompt", STRING, (-1,)),)
    outputs = (Tensor("text", STRING, (-1,)),)

    def __init__(self, file: Path, options: Options) -> None:
        """Raise `CannotLoad` for a file that llama.cpp will not have; it logs the cause alone."""
        self._folder = Path(tempfile.mkdtemp(prefix="llama-"))
        gpu = any(wish != "cpu" for wish in options.devices)
        try:
            self._server: Any = xllamacpp.Server(_settings(file, self._folder, options, gpu=gpu))
        except RuntimeError as e:
            self._discard()
            raise CannotLoad(f"llama.cpp would not open {file.name}: {e}") from e
        version = metadata.version("xllamacpp")
        self.info = Info("llama.cpp", version, "gpu" if gpu else "cpu")

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Answer each `prompt` with at most `max_tokens` (a number, beside it) tokens, else 32."""
        longest = int(np.asarray(feeds.get(_LONGEST, _TOKENS)).reshape(-1)[0])
        found = [self._answer(str(prompt), longest) for prompt in feeds["prompt"]]
        return {"text": np.array(found, object)}

    def _answer(self, prompt: str, longest: int) -> str:
        asked = {"prompt": prompt, "n_predict": longest, "temperature": 0, "cache_prompt": False}
        answer = self._server.handle_completions(asked)
        if "error" in answer:
            raise ValueError(f"llama.cpp: {answer['error'].get('message', answer['error'])}")
        return str(answer["choices"][0]["text"])

    def close(self) -> None:
        self._server = None
        self._discard()

    def _discard(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)


def _settings(file: Path, folder: Path, options: Options, *, gpu: bool) -> Any:
    wanted = xllamacpp.CommonParams()
    wanted.model.path = str(file)
    wanted.hostnames = [str(folder / "s.sock")]
    wanted.ui = False
    wanted.n_ctx = _CONTEXT
    wanted.n_parallel = 1
    wanted.n_gpu_layers = -1 if gpu else 0
    wanted.cpuparams.n_threads = wanted.cpuparams_batch.n_threads = options.threads
    wanted.warmup = False
    wanted.verbosity = _QUIET
    return wanted


def load(file: Path, options: Options) -> Completion:
    """Open a model."""
    return Completion(file, options)
