"""What answers cost: one answer's figures, and their means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Figures = Mapping[str, float]
OF_REPORT = ("granted", "share", "budget_met", "prefill_gflops", "decode_gflops_per_token", "predicted_ms")


def figures_of(facts: Mapping[str, Any]) -> dict[str, float]:
    """One answer's figures, from what an answers file's record has in its metadata.

    ``time_to_first_token_ms`` and ``ms_per_token`` are the batch's; ``later_tokens`` are those behind the first.
    Operations and shares are there where the model has a plan.
    """
    later = max(0, facts["new_tokens"] - 1)
    figures = {"time_to_first_token_ms": float(facts["time_to_first_token_ms"]), "later_tokens": float(later)}
    if later and facts["tokens_per_second"]:
        figures["ms_per_token"] = 1000 / facts["tokens_per_second"]
    return {**figures, **{name: float(facts[name]) for name in OF_REPORT if facts.get(name) is not None}}


def means(answers: Sequence[Figures]) -> dict[str, float]:
    """Of each figure over the answers that have it; of ``ms_per_token`` over tokens."""
    names = dict.fromkeys(name for figures in answers for name in figures if name != "later_tokens")
    return {name: _mean(name, [figures for figures in answers if name in figures]) for name in names}


def _mean(name: str, answers: Sequence[Figures]) -> float:
    weights = [figures["later_tokens"] if name == "ms_per_token" else 1.0 for figures in answers]
    return sum(w * figures[name] for w, figures in zip(weights, answers, strict=True)) / sum(weights)


def means_by_task(tasks: Sequence[str], answers: Sequence[Figures]) -> dict[str, float]:
    """Means over everything that was asked; of several tasks each one's own, too, under ``TASK:NAME``."""
    overall = means(answers)
    for task in dict.fromkeys(tasks) if len(set(tasks)) > 1 else ():
        own = [figures for name, figures in zip(tasks, answers, strict=True) if name == task]
        overall |= {f"{task}:{name}": value for name, value in means(own).items()}
    return overall
