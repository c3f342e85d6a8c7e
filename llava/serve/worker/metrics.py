"""A worker's metrics for Prometheus, under vLLM's names where it has one."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from llava.plugins import hooks
from llava.serve.engine.request import ABORT, EngineRequest, Finished, Outcome
from llava.serve.engine.request_queue import Load

DEFAULT_PREFIX = "llava:"
LABEL = "model_name"
TTFT_BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
TOKEN_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
REQUEST_BUCKETS_S = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
QUEUE_BUCKETS_S = (0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


def metrics_prefix() -> str:
    """Return the prefix of all exported names: a plug-in's, or ``llava:``."""
    prefix: str | None = hooks().metrics_prefix()
    return DEFAULT_PREFIX if prefix is None else prefix


class WorkerMetrics:
    """Counters, gauges and histograms of one worker, in ``registry``."""

    def __init__(self, registry: CollectorRegistry, model_name: str, load: Callable[[], Load]) -> None:
        self.registry = registry
        self._model = model_name
        self._prefix = metrics_prefix()
        self._add_times()
        self._add_counters()
        self._add_gauge("num_requests_running", "Requests in the model.", lambda: load().running)
        self._add_gauge("num_requests_waiting", "Requests in the queue.", lambda: load().waiting)

    def _add_times(self) -> None:
        ttft = "Time from a request's arrival to the first token, the time in the queue included."
        self.first_token = self._histogram("time_to_first_token_seconds", ttft, TTFT_BUCKETS_S)
        self.inter_token = self._histogram("inter_token_latency_seconds", "Time of a decode step.", TOKEN_BUCKETS_S)
        total = "Time from a request's arrival to the end of its answer."
        self.total = self._histogram("e2e_request_latency_seconds", total, REQUEST_BUCKETS_S)
        self.queue = self._histogram("request_queue_time_seconds", "Time in the queue.", QUEUE_BUCKETS_S)

    def _add_counters(self) -> None:
        self.prompt = self._counter("prompt_tokens", "Positions of prompts, image tokens included.")
        self.generated = self._counter("generation_tokens", "Tokens of answers.")
        self.success = self._counter("request_success", "Requests that ended, by reason.", "finished_reason")
        self.rejected = self._counter("requests_rejected", "Requests without an answer, by HTTP status.", "code")
        self.prompt.labels(self._model)  # exported from the start, as 0
        self.generated.labels(self._model)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        histogram = Histogram(self._prefix + name, text, [LABEL], buckets=buckets, registry=self.registry)
        return histogram.labels(self._model)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(self._prefix + name, text, [LABEL, *labels], registry=self.registry)

    def _add_gauge(self, name: str, text: str, value: Callable[[], float]) -> None:
        gauge = Gauge(self._prefix + name, text, [LABEL], registry=self.registry)
        gauge.labels(self._model).set_function(value)

    def record_end(self, request: EngineRequest, outcome: Outcome) -> None:
        """Count an answer, complete or aborted; failures are counted by ``record_failure``."""
        if not isinstance(outcome, Finished):
            return
        self.success.labels(self._model, outcome.finish_reason).inc()
        self.prompt.labels(self._model).inc(request.generation.prompt_tokens)
        self.generated.labels(self._model).inc(len(outcome.answer.token_ids))
        self.queue.observe(request.queue_s)
        if outcome.answer.token_ids:
            self.first_token.observe(request.first_token_s(outcome))
        for token_ms in outcome.answer.token_ms:
            self.inter_token.observe(token_ms / 1000)
        if outcome.finish_reason != ABORT:
            self.total.observe(request.total_s)

    def record_failure(self, status: int) -> None:
        """Count a request that got a failure with this HTTP status instead of an answer."""
        self.rejected.labels(self._model, str(status)).inc()
