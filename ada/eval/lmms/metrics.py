"""Computes what answers cost: one answer's metrics, and their means over tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Metrics = Mapping[str, float]
REPORT_FIELDS = ("granted", "share", "budget_met", "prefill_gflops", "decode_gflops_per_token", "ttft_p95_ms")


def metrics_of(metadata: Mapping[str, Any]) -> dict[str, float]:
    """Return one answer's metrics from the metadata of its record in an answers file.

    ``time_to_first_token_ms`` and ``ms_per_token`` are the batch's; ``later_tokens`` are those after the first.
    Operations and shares are there where the model has a plan, and ``image_tokens_kept`` and ``image_tokens_late``, as
    shares of all, where the question also shows an image.
    """
    later = max(0, metadata["new_tokens"] - 1)
    metrics = {"time_to_first_token_ms": float(metadata["time_to_first_token_ms"]), "later_tokens": float(later)}
    if later and metadata["tokens_per_second"]:
        metrics["ms_per_token"] = 1000 / metadata["tokens_per_second"]
    reported = {name: float(metadata[name]) for name in REPORT_FIELDS if metadata.get(name) is not None}
    counts = metadata.get("image_tokens") or {"all": 0}
    read = {f"image_tokens_{name}": counts[name] / counts["all"] for name in ("kept", "late") if counts["all"]}
    return {**metrics, **reported, **read}


def means(answers: Sequence[Metrics]) -> dict[str, float]:
    """Average each metric over the answers that have it, and ``ms_per_token`` over their tokens."""
    names = dict.fromkeys(name for metrics in answers for name in metrics if name != "later_tokens")
    return {name: _mean(name, [metrics for metrics in answers if name in metrics]) for name in names}


def _mean(name: str, answers: Sequence[Metrics]) -> float:
    weights = [metrics["later_tokens"] if name == "ms_per_token" else 1.0 for metrics in answers]
    return sum(w * metrics[name] for w, metrics in zip(weights, answers, strict=True)) / sum(weights)


def means_by_task(tasks: Sequence[str], answers: Sequence[Metrics]) -> dict[str, float]:
    """Average over all answers and, where there are several tasks, over each one's as ``TASK:NAME``."""
    overall = means(answers)
    for task in dict.fromkeys(tasks) if len(set(tasks)) > 1 else ():
        own = [metrics for name, metrics in zip(tasks, answers, strict=True) if name == task]
        overall |= {f"{task}:{name}": value for name, value in means(own).items()}
    return overall
