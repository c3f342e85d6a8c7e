"""Counts how many promises for whole answers are kept, clause by clause, and under a plan that is fixed at the start.

Each request has a prompt and an answer of ``--answer-tokens`` tokens. In turn it is promised a time to the first token,
a time for each later one, a time for the whole answer, or all three, each drawn from what its prompt can reach: between
the predicted p95 of the cheapest plan and the prediction for all units. It runs under the corrections that follow the
device, token by token; then once more under the plan that the calibration alone chooses at the start, for prefill and
tokens alike.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from tqdm import tqdm

from ada.budget import CLAUSES, TimeBudget
from ada.latency.latency_model import Workload
from ada.latency.measure import RunTiming, Timer
from ada.latency.ttft_predictor import TTFTPredictor
from ada.scheduling.units import Units

PROMISED = (*((clause,) for clause in CLAUSES), CLAUSES)  # in turn
SETTLE = 20  # requests under load after which the corrections must have followed


@dataclass(frozen=True)
class AnswerOutcome:
    """Milliseconds promised and measured, by clause; cut: the answer ended early, as its time was over."""

    promised: Mapping[str, float]
    measured: Mapping[str, float]
    busy: bool
    cut: bool = False

    @property
    def kept(self) -> bool:
        """Whether every clause was kept."""
        return all(self.measured[name] <= allowed for name, allowed in self.promised.items())

    @property
    def used(self) -> float:
        """The share that was used of the clause that was used most, at most 1."""
        return min(1.0, max(self.measured[name] / allowed for name, allowed in self.promised.items()))


def promises(
    predictor: TTFTPredictor, workload: Workload, later_tokens: int, rng: random.Random, clauses: Sequence[str]
) -> TimeBudget:
    """Draw a budget of these clauses from what a prompt reaches: between its cheapest plan and all units."""
    every = TimeBudget.of(dict.fromkeys(CLAUSES, 1e12))
    every = replace(every, later_tokens=later_tokens)
    low = predictor.minimum(every, replace(workload, num_units=0))
    high = predictor.times(every, replace(workload, num_units=predictor.units.tunable))
    drawn = {name: rng.uniform(*sorted((low[name], high[name]))) for name in clauses}
    return replace(TimeBudget.of(drawn), later_tokens=later_tokens)


def slower(budget: TimeBudget, factor: float) -> TimeBudget:
    """Return a budget whose times are ``factor`` times as long."""
    times = {name: factor * allowed for name, allowed in budget.clauses()}
    return replace(TimeBudget.of(times), later_tokens=budget.later_tokens)


def fixed_units(predictor: TTFTPredictor, budget: TimeBudget, workload: Workload) -> int:
    """Return the units of the plan that the calibration chooses at the start for prefill and tokens."""
    units = predictor.units_within(budget, workload)
    return predictor.token_units(budget, replace(workload, num_units=units))


def outcome(budget: TimeBudget, run: RunTiming, busy: bool) -> AnswerOutcome:
    """Return what became of a budget in a run."""
    measured = {"ttft": run.prefill.ttft_ms, "tpot": run.mean_token_ms, "total": run.total_ms}
    cut = run.new_tokens <= budget.later_tokens
    return AnswerOutcome(dict(budget.clauses()), measured, busy, cut)


def measure_answers(
    units: Units,
    workloads: Sequence[Workload],
    predictor: TTFTPredictor,
    timer: Timer,
    answer_tokens: int,
    busy_from: int,
    load: Callable[[], contextlib.AbstractContextManager[None]],
    slowdown: Callable[[], float],
) -> tuple[dict[str, list[AnswerOutcome]], float]:
    """Run all requests; return their outcomes, paced and under a fixed plan, and how many times slower the load is."""
    fixed, factor, rng = predictor.fixed(), 1.0, random.Random(1)
    outcomes: dict[str, list[AnswerOutcome]] = {"paced": [], "fixed": []}
    clauses = itertools.cycle(PROMISED)
    with contextlib.ExitStack() as stack, tqdm(workloads, desc="answers", file=sys.stderr) as bar:
        for number, workload in enumerate(bar):
            busy = number >= busy_from
            if number == busy_from:
                stack.enter_context(load())
                factor = slowdown()
            drawn = promises(fixed, workload, answer_tokens - 1, rng, next(clauses))
            budget = slower(drawn, factor)
            outcomes["paced"].append(outcome(budget, timer(workload, budget, predictor), busy))
            plan = replace(workload, num_units=fixed_units(fixed, budget, workload))
            outcomes["fixed"].append(outcome(budget, timer(plan), busy))
            so_far = [one for one in outcomes["paced"] if one.busy == busy]
            bar.set_postfix(kept=f"{fmean(one.kept for one in so_far):.1%}", refresh=False)
    return outcomes, factor


def summary(outcomes: Sequence[AnswerOutcome]) -> dict[str, Any] | None:
    """Return shares in [0, 1], in all and by clause; None where there are no requests."""
    if not outcomes:
        return None
    by_clause = {}
    for name in CLAUSES:
        kept = [one.measured[name] <= one.promised[name] for one in outcomes if name in one.promised]
        by_clause[name] = fmean(kept) if kept else None
    return {
        "requests": len(outcomes),
        "kept": fmean(one.kept for one in outcomes),
        "kept_complete": fmean(one.kept and not one.cut for one in outcomes),
        "used": fmean(one.used for one in outcomes),
        "used_by_clauses": {
            ",".join(names): fmean([one.used for one in outcomes if (*one.promised,) == names] or [0.0])
            for names in PROMISED
        },
        "cut": fmean(one.cut for one in outcomes),
        **by_clause,
    }


def report(outcomes: Mapping[str, Sequence[AnswerOutcome]]) -> dict[str, Any]:
    """Summarize outcomes by planning and load, without the first ``SETTLE`` requests under load."""
    found = {}
    for name, of in outcomes.items():
        found[f"quiet, {name}"] = summary([one for one in of if not one.busy])
        found[f"busy, {name}"] = summary([one for one in of if one.busy][SETTLE:])
    return found
