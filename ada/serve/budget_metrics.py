"""What a worker counts of budgets, beside the shell's metrics."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from llava.serve.worker.metrics import LABEL, PREFIX

SHARES = tuple(step / 20 for step in range(1, 21))


class BudgetMetrics:
    """Budgets granted, plans' costs, budgets missed and budgets lowered, of one worker."""

    def __init__(self, registry: CollectorRegistry, model_name: str, multiplier: Callable[[], float]) -> None:
        def shares(name: str, text: str) -> Histogram:
            return Histogram(PREFIX + name, text, [LABEL], buckets=SHARES, registry=registry).labels(model_name)

        def counter(name: str, text: str) -> Counter:
            return Counter(PREFIX + name, text, [LABEL], registry=registry).labels(model_name)

        self.granted = shares("latency_budget_ratio", "Latency budgets granted, as shares of the decoder's units.")
        self.cost = shares("plan_cost_ratio", "Executed share of the decoder's heads and neuron groups.")
        self.violations = counter("budget_violations", "Answers that took more than the budget that was asked for.")
        self.downgrades = counter("budget_downgrades", "Requests that were granted less than they asked, for load.")
        gauge = Gauge(PREFIX + "budget_multiplier", "What load makes of budgets now.", [LABEL], registry=registry)
        gauge.labels(model_name).set_function(multiplier)
