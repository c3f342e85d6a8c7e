"""Runs prompts in one of the ways that are compared, and stamps their tokens."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import StoppingCriteria

from ada.bench.device import wait_for
from ada.scheduling.execution_plan import ExecutionPlan

TRANSFORMERS, STATIC, ENGINE = "transformers", "transformers static", "engine"


@dataclass(frozen=True)
class RunTimes:
    """Milliseconds of one run: to the first token, to the second one, and of a decode step (the mean of all).

    plans: of each row; empty where the way knows no plans. step_bytes: what a step must read, where the way's weights
    are not the model's own.
    """

    first_ms: float
    second_ms: float
    token_ms: float
    plans: tuple[ExecutionPlan, ...] = ()
    step_bytes: int | None = None

    @classmethod
    def of(cls, start: float, first: float, second: float, last: float, steps: int, *plans: ExecutionPlan) -> RunTimes:
        """Make the times from stamps in seconds; steps: how many lie between the first and the last token."""
        return cls(1000 * (first - start), 1000 * (second - start), 1000 * (last - first) / steps, plans)


Way = Callable[[torch.Tensor, float], RunTimes]
"""Token ids (R, T) of R prompts, and the budget of each -> how long reading and decoding them took."""


@dataclass
class Stamps(StoppingCriteria):  # type: ignore[misc]
    """Notes when the first, the second and the last of ``tokens`` were there; between them nothing waits for a GPU."""

    tokens: int
    count: int = 0
    at: dict[int, float] = field(default_factory=dict)

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        """Count a token; stop no row."""
        self.count += 1
        if self.count in (1, 2, self.tokens):
            wait_for(input_ids.device)
            self.at[self.count] = time.perf_counter()
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)


class Generate:
    """The model's own ``generate``, by the engine or by transformers' loop.

    steps: decode steps of a run; keywords: further ones of ``generate``.
    """

    def __init__(self, model: Any, steps: int, **keywords: Any) -> None:
        self.model, self.steps, self.keywords = model, steps, keywords

    def __call__(self, ids: torch.Tensor, budget: float) -> RunTimes:
        """Read and decode prompts (R, T), each under the budget."""
        tokens = self.steps + 1
        stamps = Stamps(tokens)
        wait_for(ids.device)
        start = time.perf_counter()
        output = self.model.generate(
            ids,
            latency_budget=[budget] * len(ids),
            stopping_criteria=[stamps],
            max_new_tokens=tokens,
            eos_token_id=None,  # nothing ends an answer early; a processor would cost every token
            do_sample=False,
            return_dict_in_generate=True,
            **self.keywords,
        )
        plans = output.execution_plan
        at = stamps.at[1], stamps.at[2], stamps.at[tokens]
        return RunTimes.of(start, *at, self.steps, *(plans if isinstance(plans, list) else [plans]))


def engine(model: Any, steps: int) -> Way:
    """Return the engine's way; it never falls back on transformers' loop."""
    return Generate(model, steps, engine="ada")


def transformers(model: Any, steps: int) -> Way:
    """Return transformers' loop with its growing cache."""
    return Generate(model, steps, engine="transformers")


def transformers_static(model: Any, steps: int) -> Way:
    """Return transformers' loop with its static cache, which it compiles by itself on a GPU."""
    return Generate(model, steps, engine="transformers", cache_implementation="static")
