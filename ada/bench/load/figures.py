"""Summarizes and plots the results of a load test: percentiles, throughput, answers that differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ada.bench.load.client import Result
from llava.files.atomic_write import atomic_path

FULL_QUEUE = 429


def percentile(values: Sequence[float], share: float) -> float | None:
    """Return the smallest value that at least ``share`` of all do not exceed; None where there are none."""
    return float(np.percentile(values, 100 * share, method="inverted_cdf")) if values else None


def summary(results: Sequence[Result]) -> dict[str, Any]:
    """Return counts, p50 and p95 of TTFT and of complete answers in seconds, and answers and tokens a second."""
    answered = [result for result in results if result.answered]
    first = [result.first_s for result in answered if result.first_s is not None]
    total = [result.total_s for result in answered if result.total_s is not None]
    ends = [result.due_s + result.total_s for result in answered if result.total_s is not None]
    span_s = max(ends) - min(result.due_s for result in results) if ends else 0.0
    refused = sum(result.status == FULL_QUEUE for result in results)
    granted = [result.granted for result in answered if result.granted is not None]
    return {
        "requests": len(results),
        "answered": len(answered),
        "refused": refused,
        "lost": len(results) - len(answered) - refused,
        "first_token_s": {"p50": percentile(first, 0.5), "p95": percentile(first, 0.95)},
        "total_s": {"p50": percentile(total, 0.5), "p95": percentile(total, 0.95)},
        "answers_per_second": len(answered) / span_s if span_s else None,
        "tokens_per_second": sum(result.tokens for result in answered) / span_s if span_s else None,
        "mean_budget_granted": sum(granted) / len(granted) if granted else None,
    }


def differing(results: Sequence[Result], alone: Sequence[Result]) -> list[dict[str, Any]]:
    """Return the answers under load that differ from the one given to the same request alone."""
    return [
        {"request": mine.index, "alone": one.text, "under_load": mine.text}
        for mine, one in zip(results, alone, strict=True)
        if mine.answered and mine.text != one.text
    ]


def draw(
    path: Path, runs: Mapping[str, tuple[Sequence[Result], Sequence[dict[str, float]]]], unloaded_s: float
) -> None:
    """Plot budget, queue and TTFT over the time of each run, one below the other, as a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 8), layout="constrained")
    budget, queue, latency = figure.subplots(3, 1, sharex=True)
    for colour, (name, (results, samples)) in zip(("tab:red", "tab:blue", "tab:green"), runs.items(), strict=False):
        granted = [(r.due_s, r.granted) for r in results if r.granted is not None]
        budget.scatter(*_columns(granted), s=8, color=colour, label=f"{name}: granted")
        seen = [(sample["at_s"], sample.get("num_requests_waiting", 0.0)) for sample in samples]
        queue.plot(*_columns(seen), color=colour, label=f"{name}: waiting")
        refused = [(r.due_s, 0.0) for r in results if r.status == FULL_QUEUE]
        queue.scatter(*_columns(refused), marker="x", s=20, color=colour, label=f"{name}: refused ({len(refused)})")
        first = [(r.due_s, r.first_s) for r in results if r.answered and r.first_s is not None]
        latency.scatter(*_columns(first), s=8, color=colour, label=name)
    latency.axhline(2 * unloaded_s, color="grey", linestyle="--", label="twice the unloaded p95")
    labels = ("budget", "requests", "first token, s")
    for axis, label in zip((budget, queue, latency), labels, strict=True):
        axis.set_ylabel(label)
        axis.set_ylim(bottom=0)
        axis.legend(loc="upper right", fontsize="small")
    latency.set_xlabel("seconds")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120)


def _columns(pairs: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in pairs], [y for _, y in pairs]
