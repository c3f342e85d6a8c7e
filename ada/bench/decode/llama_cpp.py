"""Runs prompts in llama.cpp, on the same weights in Q8_0."""

from __future__ import annotations

import importlib
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ada.bench.decode.gguf_file import write_gguf
from ada.bench.decode.ways import RunTimes, Way
from llava.errors import OptionError

LLAMA_CPP = "llama.cpp"
FLOAT16 = 2  # bytes of its keys and values
PACKAGES = {"llama_cpp": "llama-cpp-python", "gguf": "gguf"}  # by module: nobody else needs them


def require_llama_cpp() -> tuple[Any, Any]:
    """Return the modules llama_cpp and gguf. Raises OptionError where one is missing."""
    try:
        return importlib.import_module("llama_cpp"), importlib.import_module("gguf")
    except ImportError as error:
        missing = PACKAGES.get(error.name or "", error.name)
        raise OptionError(
            f"--peer {LLAMA_CPP} needs {missing}, which cannot be imported ({error}); "
            f"pip install {' '.join(PACKAGES.values())} (llama-cpp-python is built with a C++ compiler), "
            "or leave the flag out"
        ) from error


def llama_cpp(model: Any, steps: int, positions: int) -> Way:
    """Return llama.cpp's way for one row of up to ``positions`` positions, on as many threads as torch uses."""
    cpp, gguf = require_llama_cpp()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "decoder.gguf"
        weights = write_gguf(model, path, gguf)
        config, threads = model.config, torch.get_num_threads()
        llama = cpp.Llama(  # reads the file into memory, so that it may go
            str(path),
            n_ctx=positions,
            n_batch=positions,
            n_ubatch=positions,
            n_threads=threads,
            n_threads_batch=threads,
            use_mmap=False,
            verbose=False,
        )

    column = (
        2 * FLOAT16 * config.num_hidden_layers * config.num_key_value_heads * model.model.layers[0].self_attn.head_dim
    )

    def run(ids: torch.Tensor, _: float) -> RunTimes:
        """Read a prompt (1, T), then decode one token after the other: any, for they cost the same."""
        tokens = ids[0].tolist()
        llama.reset()
        start = time.perf_counter()
        llama.eval(tokens)
        stamps = [time.perf_counter()]
        for token in (tokens * steps)[:steps]:
            llama.eval([token])
            stamps.append(time.perf_counter())
        times = RunTimes.of(start, stamps[0], stamps[1], stamps[-1], steps)
        return replace(times, step_bytes=weights + int(column * (len(tokens) + steps / 2)))

    return run
