"""Reads lmms-eval's settings: ``--model_args``, ``--batch_size`` and a task's ``generation_kwargs``."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from llava.errors import OptionError
from llava.generation import SamplingParams
from llava.plugins import hooks

log = logging.getLogger(__name__)

MAX_NEW_TOKENS = 1024  # where a task says nothing, as in model_vqa
KNOWN = frozenset(("until", "max_new_tokens", "temperature", "do_sample", "top_p", "num_beams"))
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class GenerationSettings:
    """How a task wants its answers: sampling, and the texts that end an answer."""

    sampling: SamplingParams
    stops: tuple[str, ...]


def read_generation_kwargs(kwargs: Mapping[str, Any]) -> GenerationSettings:
    """Read a task's ``generation_kwargs``: greedy unless it asks for samples.

    Settings without effect here are named in a warning. Raises ``OptionError`` for values out of range.
    """
    given = {name: value for name, value in kwargs.items() if value is not None}
    unknown = sorted(given.keys() - KNOWN)
    if unknown:
        log.warning("generation_kwargs %s have no effect on ada_llava", ", ".join(unknown))
    until = given.get("until", ())
    stops = (until,) if isinstance(until, str) else until
    if not isinstance(stops, (list, tuple)) or not all(isinstance(stop, str) for stop in stops):
        raise OptionError(f"until is {until!r} in a task's generation_kwargs; expected a text, or a list of texts")
    temperature = float(given.get("temperature", 1.0 if given.get("do_sample") else 0.0))
    if not given.get("do_sample", True):
        temperature = 0.0
    sampling = SamplingParams(
        temperature=temperature,
        top_p=given.get("top_p") if temperature else None,  # tasks set 0 for greedy answers
        num_beams=int(given.get("num_beams", 1)),
        max_new_tokens=int(given.get("max_new_tokens", MAX_NEW_TOKENS)),
    )
    sampling.keywords()
    return GenerationSettings(sampling, tuple(stop for stop in stops if stop))


def plugin_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the plug-ins' options by name, as a program's flags would give them: ``latency_budget``, ``planner``, ...

    given: model arguments that are not the class's own. Raises ``OptionError`` for a name that no plug-in knows.
    """
    parser = argparse.ArgumentParser(add_help=False)
    hooks().add_arguments(parser=parser, program="lmms_eval")
    options = vars(parser.parse_args([]))
    unknown = sorted(given.keys() - options.keys())
    if unknown:
        raise OptionError(f"--model_args has {', '.join(unknown)}; expected one of {', '.join(sorted(options))}")
    return {**options, **given}


def dtype_named(name: str) -> torch.dtype:
    """Return the torch type of ``dtype`` in the model arguments. Raises ``OptionError`` for another name."""
    if name not in DTYPES:
        raise OptionError(f"dtype is {name!r} in --model_args; expected one of {', '.join(DTYPES)}")
    return DTYPES[name]


def batch_size_of(value: object) -> int:
    """Read ``--batch_size``, which lmms-eval passes as text. Raises ``OptionError``, for "auto" too."""
    size = int(str(value)) if str(value).isdecimal() else 0
    if size < 1:
        raise OptionError(f"--batch_size is {value!r}; ada_llava takes a whole number from 1 up")
    return size
