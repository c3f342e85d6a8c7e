"""How often every head and every neuron group of every layer ran."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from ada.eval.answering.answer_file import GivenAnswer
from ada.scheduling.execution_plan import ExecutionPlan

ALL = "all"
Frequencies = dict[str, np.ndarray]
"""Kind of question, or ``ALL`` -> (layers, 2, switches) in [0, 1]: heads, then neuron groups."""


def plan_frequencies(kinds: Sequence[str], answers: Sequence[GivenAnswer]) -> Frequencies:
    """Shares of the answers under whose plan a switch ran. kinds: of every answer's question."""
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
