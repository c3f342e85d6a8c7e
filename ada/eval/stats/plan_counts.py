"""Counts how often every head and every neuron group of every layer ran."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ada.eval.answering.answer_file import GivenAnswer
from ada.scheduling.execution_plan import ExecutionPlan

ALL = "all"
Frequency = npt.NDArray[np.float64]
"""(layers, 2, switches) in [0, 1]: heads, then neuron groups."""
Frequencies = dict[str, Frequency]
"""By kind of question, or ``ALL``."""


def plan_frequencies(kinds: Sequence[str], answers: Sequence[GivenAnswer]) -> Frequencies:
    """Return the share of answers under whose plan each switch ran. kinds: of every answer's question."""
    seen: Counter[tuple[str, tuple[Any, ...]]] = Counter(
        (kind, tuple(answer.plan.items())) for kind, answer in zip(kinds, answers, strict=True)
    )
    sums: defaultdict[str, Any] = defaultdict(int)
    for (kind, plan), count in seen.items():
        gates = count * ExecutionPlan.from_json(dict(plan)).gates().numpy()
        sums[kind] = sums[kind] + gates
        sums[ALL] = sums[ALL] + gates
    totals = Counter(kinds) + Counter({ALL: len(answers)})
    return {kind: sums[kind] / totals[kind] for kind in (ALL, *dict.fromkeys(kinds))}
