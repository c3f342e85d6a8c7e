"""Summarises rounds: medians, ratios of a round, and shares of the memory's bandwidth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import fmean, median
from typing import Any

from ada.bench.decode.rounds import NEW_PLAN, Run, Runs, SubjectRounds
from ada.bench.decode.step_bytes import DecoderBytes
from ada.bench.decode.ways import ENGINE, TRANSFORMERS, RunTimes

Figure = Callable[[RunTimes], float]  # what of a run is compared


def first_ms(times: RunTimes) -> float:
    """Return the time to the first token."""
    return times.first_ms


def token_ms(times: RunTimes) -> float:
    """Return the time of a decode step."""
    return times.token_ms


def second_ms(times: RunTimes) -> float:
    """Return the time to the second token."""
    return times.second_ms


def median_ratio(runs: Runs, run: Run, reference: Run, figure: Figure) -> float | None:
    """Return the median over rounds of a run's figure over the reference's; None where that was not run."""
    if not (runs.get(run) and runs.get(reference)):
        return None
    pairs = zip(runs[run], runs[reference], strict=True)
    return median(figure(one) / figure(other) for one, other in pairs)


def lines(rounds: SubjectRounds, bandwidth: float) -> list[dict[str, Any]]:
    """Return a line for each run of a subject, in the order of a table. bandwidth: of the memory, bytes per second.

    ``share``: of the decoder's units that ran; ``over_full``: over the same way at budget 1; ``over_transformers``:
    over transformers' loop at the same budget; ``bandwidth_share``: the bytes that a step must read, over its time,
    over the bandwidth.
    """
    sizes, steps = rounds.subject.bytes, rounds.subject.steps
    title = {"model": rounds.subject.title}
    found = [title | _line(rounds.times, run, sizes, steps, bandwidth) for run in rounds.times]
    return sorted(found, key=lambda line: (line["positions"], line["rows"], -line["budget"], line["way"]))


def _line(runs: Runs, run: Run, sizes: DecoderBytes, steps: int, bandwidth: float) -> dict[str, Any]:
    setting, times = run.setting, runs[run]
    full = Run(replace(setting, budget=1.0), run.way)
    peer, seen = Run(setting, TRANSFORMERS), Run(setting, ENGINE)
    line: dict[str, Any] = {"way": run.way, "budget": setting.budget, "positions": setting.positions}
    line |= {"rows": setting.rows, "rounds": len(times)}
    for name, figure in (("first", first_ms), ("token", token_ms)):
        line[f"{name}_ms"] = _rounded(median(map(figure, times)))
        line[f"{name}_over_full"] = _rounded(median_ratio(runs, run, full, figure))
        line[f"{name}_over_transformers"] = _rounded(median_ratio(runs, run, peer, figure))
    read = times[0].step_bytes
    if times[0].plans:
        line["share"] = _rounded(fmean(plan.share for plan in times[0].plans))
        read = sizes.step(times[0].plans, setting.positions + 1 + steps / 2)
    if read is not None:
        line["step_bytes"] = read
        line["bandwidth_share"] = _rounded(read / (median(map(token_ms, times)) / 1000) / bandwidth)
    if run.way == NEW_PLAN and runs.get(seen):
        line["new_plan_ms"] = _rounded(new_plan_ms(times, runs[seen]))
    return line


def new_plan_ms(new: Sequence[RunTimes], seen: Sequence[RunTimes]) -> float:
    """Return the median over rounds of how much later the second token of new prompts is than that of seen ones."""
    return median(second_ms(one) - second_ms(other) for one, other in zip(new, seen, strict=True))


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")
