"""What a worker counts for Prometheus, under vLLM's names where it has one."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from llava.serve.engine.request import ABORT, EngineRequest, Finished, Outcome
from llava.serve.engine.request_queue import Load

PREFIX = "adallava:"
LABEL = "model_name"
FIRST_TOKEN_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
TOKEN_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
REQUEST_S = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
QUEUE_S = (0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class WorkerMetrics:
    """Counters and histograms of one worker, in a registry of its own."""

    def __init__(self, registry: CollectorRegistry, model_name: str, load: Callable[[], Load]) -> None:
        self.registry = registry
        self._model = model_name
        label = [LABEL]

        def histogram(name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(PREFIX + name, text, label, buckets=buckets, registry=registry).labels(model_name)

        self.first_token = histogram(
            "time_to_first_token_seconds", "Arrival to first token, the queue included.", FIRST_TOKEN_S
        )
        self.between = histogram("inter_token_latency_seconds", "One token behind the first.", TOKEN_S)
        self.whole = histogram("e2e_request_latency_seconds", "Arrival to the answer's end.", REQUEST_S)
        self.queue = histogram("request_queue_time_seconds", "Time in the queue.", QUEUE_S)
        self.prompt = Counter(
            PREFIX + "prompt_tokens", "Positions of prompts, pictures included.", label, registry=registry
        )
        self.generated = Counter(PREFIX + "generation_tokens", "Tokens of answers.", label, registry=registry)
        self.success = Counter(
            PREFIX + "request_success", "Requests that ended, by why.", [*label, "finished_reason"], registry=registry
        )
        self.rejected = Counter(
            PREFIX + "requests_rejected",
            "Requests without answer, by HTTP status.",
            [*label, "code"],
            registry=registry,
        )
        running = Gauge(PREFIX + "num_requests_running", "Requests in the model.", label, registry=registry)
        waiting = Gauge(PREFIX + "num_requests_waiting", "Requests in the queue.", label, registry=registry)
        running.labels(model_name).set_function(lambda: load().running)
        waiting.labels(model_name).set_function(lambda: load().waiting)
        self.prompt.labels(model_name)  # there from the start, at 0
        self.generated.labels(model_name)

    def ended(self, job: EngineRequest, outcome: Outcome) -> None:
        """Count an answer, whole or cut short; failures are ``refused``."""
        if not isinstance(outcome, Finished):
            return
        self.success.labels(self._model, outcome.finish_reason).inc()
        self.prompt.labels(self._model).inc(job.question.prompt_tokens)
        self.generated.labels(self._model).inc(len(outcome.answer.token_ids))
        self.queue.observe(job.queue_s)
        if outcome.answer.token_ids:
            self.first_token.observe(job.first_token_s(outcome))
        for token_ms in outcome.answer.token_ms:
            self.between.observe(token_ms / 1000)
        if outcome.finish_reason != ABORT:
            self.whole.observe(job.total_s)

    def refused(self, status: int) -> None:
        """Count a request that got a failure in place of an answer."""
        self.rejected.labels(self._model, str(status)).inc()
