"""Reports what became of a budget's clauses in time: asked for, predicted, the minimum, and measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ada.budget import TimeBudget


@dataclass(frozen=True)
class ClauseReport:
    """One clause, in milliseconds.

    name: ``ttft``, ``tpot`` or ``total``. predicted_ms: as the plan was made; min_ms: of the cheapest plan.
    measured_ms: from when the question reached the model, once the answer has ended.
    """

    name: str
    requested_ms: float
    predicted_ms: float
    min_ms: float
    measured_ms: float | None = None

    @property
    def reachable(self) -> bool:
        """Whether the cheapest plan is predicted to keep it."""
        return self.min_ms <= self.requested_ms

    @property
    def kept(self) -> bool | None:
        """Whether it was kept; None before the answer has ended, or where it had no token that counts."""
        return None if self.measured_ms is None else self.measured_ms <= self.requested_ms

    def summary(self) -> str:
        """Return a phrase for people."""
        times = [f"{self.requested_ms:.4g} ms", f"predicted {self.predicted_ms:.4g}"]
        if not self.reachable:
            times.append(f"at least {self.min_ms:.4g} here")
        if self.measured_ms is not None:
            times.append(f"measured {self.measured_ms:.4g}")
        return f"{self.name} {', '.join(times)}"


def clauses_of(
    budget: TimeBudget, predicted: Mapping[str, float], minimum: Mapping[str, float]
) -> tuple[ClauseReport, ...]:
    """Return the report on each clause of a budget, before the answer."""
    return tuple(ClauseReport(name, allowed, predicted[name], minimum[name]) for name, allowed in budget.clauses())


def measured(clauses: Sequence[ClauseReport], timing: Mapping[str, float]) -> tuple[ClauseReport, ...]:
    """Return the reports with what an answer took; ``timing``: of ``TokenClock.timing``."""
    if not clauses:
        return ()
    first, later = timing["time_to_first_token_ms"], timing["new_tokens"] - 1
    token_ms = 1000 / timing["tokens_per_second"] if timing["tokens_per_second"] else None
    times = {"ttft": first, "tpot": token_ms, "total": first + later * (token_ms or 0.0)}
    return tuple(replace(clause, measured_ms=times[clause.name]) for clause in clauses)
