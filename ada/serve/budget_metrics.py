"""A worker's metrics of latency budgets for Prometheus, in addition to the shell's."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from llava.serve.worker.metrics import LABEL

SHARES = tuple(step / 20 for step in range(1, 21))


class BudgetMetrics:
    """Budgets granted, image tokens read, costs of plans, budgets missed and budgets lowered, of one worker.

    prefix: of their names. multiplier: called for the current factor of load-adaptive budgets.
    """

    def __init__(
        self, registry: CollectorRegistry, model_name: str, prefix: str, multiplier: Callable[[], float]
    ) -> None:
        def shares(name: str, text: str) -> Histogram:
            return Histogram(prefix + name, text, [LABEL], buckets=SHARES, registry=registry).labels(model_name)

        def counter(name: str, text: str) -> Counter:
            return Counter(prefix + name, text, [LABEL], registry=registry).labels(model_name)

        self.granted = shares("latency_budget_ratio", "Latency budgets granted, as shares of the decoder's units.")
        self.image_tokens = shares(
            "image_tokens_ratio", "Image tokens that entered the decoder, of all of a request's."
        )
        self.cost = shares("plan_cost_ratio", "Executed share of the decoder's heads and neuron groups.")
        self.violations = counter("budget_violations", "Answers that cost more than the requested budget.")
        self.downgrades = counter("budget_downgrades", "Requests that were granted less than they asked, under load.")
        gauge = Gauge(
            prefix + "budget_multiplier", "Current factor of load-adaptive budgets.", [LABEL], registry=registry
        )
        gauge.labels(model_name).set_function(multiplier)
