"""Answers under a promise of quality: a cheap plan first, and the full model where its first token is not sure.

Both read the same prompt. What the first one has computed of it is used again where that is the same (``ada/reuse``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from ada.execution.call_state import Execution
from ada.model.reading import Reading
from ada.quality.table import Promise, promises_of
from ada.reuse.call_reuse import CallReuse
from ada.scheduling.planners import planner_name
from llava.errors import OptionError
from llava.model.multimodal.embedded_batch import EmbeddedBatch

CHEAP, FULL = "cheap", "full"  # which of the two answered

Begun = tuple[Reading, EmbeddedBatch, Execution]
"""What is read of a prompt, the prompt with its latency token, and what runs on it."""


def promised(
    config: Any,
    max_disagreement: float,
    rows: int,
    chosen: Mapping[str, Any],
    planner: str | None,
    keywords: Mapping[str, Any],
) -> Promise:
    """Return the promise of a model that a call asks for. Raises OptionError for what goes with none.

    rows, planner, keywords: of the call; chosen: budget, image tokens and what else it may set of a plan, by name.
    """
    if any(value is not None for value in chosen.values()):
        raise OptionError(
            f"--max-disagreement is {max_disagreement:g}, which chooses budget and image tokens itself; leave out "
            f"{', '.join('--' + name.replace('_', '-') for name, value in chosen.items() if value is not None)}"
        )
    check_planner(config, planner)
    if rows > 1:
        raise OptionError(f"--max-disagreement is for one question at a time, and the batch has {rows}")
    if keywords.get("do_sample") or (keywords.get("num_beams") or 1) > 1:
        raise OptionError("--max-disagreement is a promise for greedy answers; leave the temperature at 0")
    return promises_of(config).best(max_disagreement)


def check_planner(config: Any, planner: str | None) -> None:
    """Raise OptionError for a planner that is not the checkpoint's: its plans are not those that were measured."""
    measured = planner_name(config, None)
    if planner_name(config, planner) != measured:
        raise OptionError(
            f"--planner is {planner!r}, and promises of quality (--max-disagreement) were measured with {measured!r}; "
            "leave one of them out"
        )


def margin(logits: torch.Tensor) -> float:
    """Return how much more likely the best token is than the second, in nats: logits (1, V)."""
    best = logits[0].float().topk(2).values
    return float(best[0] - best[1])


@dataclass
class Cascade:
    """One call's. promise: says when the cheap answer stands; begin_full: makes the full model's reading of the prompt,
    and reuse is what that one knows of it.

    stage: which answered, and margin: the cheap answer's, once its first token is known. second: the full model's
    reading, where that answered.
    """

    promise: Promise
    begin_full: Callable[[], Begun]
    reuse: CallReuse | None = None
    stage: str | None = field(default=None, init=False)
    margin: float | None = field(default=None, init=False)
    second: Begun | None = field(default=None, init=False)

    def accepts(self, logits: torch.Tensor) -> bool:
        """Note the first token's margin by its logits (1, V); return whether the cheap answer stands."""
        self.margin = margin(logits)
        self.stage = CHEAP if self.margin >= self.promise.threshold else FULL
        return self.stage == CHEAP

    def begin_again(self) -> tuple[EmbeddedBatch, Execution]:
        """Return what the full model reads, and what runs on it."""
        self.second = self.begin_full()
        return self.second[1:]
