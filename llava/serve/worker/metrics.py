"""A worker's metrics for Prometheus, under vLLM's names where it has one."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from llava.errors import OptionError
from llava.plugins import hooks
from llava.serve.engine.request import ABORT, EngineRequest, Finished, Outcome
from llava.serve.engine.request_queue import Load
from llava.serve.middleware.request_end import CLIENT_CLOSED, RequestEnd

DEFAULT_PREFIX = "llava:"
LABEL = "model_name"
TTFT_BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
TOKEN_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
REQUEST_BUCKETS_S = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
QUEUE_BUCKETS_S = (0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


def metrics_prefix(options: Mapping[str, Any]) -> str:
    """Return the prefix of all exported names: of the worker's flags, else a plug-in's, else ``llava:``.

    Raises OptionError for one with which no name of Prometheus begins.
    """
    given: str | None = options.get("metrics_prefix")
    if given is not None and not re.fullmatch("[a-zA-Z_:][a-zA-Z0-9_:]*", given):
        raise OptionError(f"--metrics-prefix is {given!r}; expected letters, digits, '_' and ':', such as vllm:")
    prefix: str | None = given or hooks().metrics_prefix()
    return DEFAULT_PREFIX if prefix is None else prefix


class WorkerMetrics:
    """Counters, gauges and histograms of one worker, in ``registry``.

    prefix: of their names. load, kv_usage: called for the requests in the worker, and for the share of the KV cache
    that they have filled.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        model_name: str,
        prefix: str,
        load: Callable[[], Load],
        kv_usage: Callable[[], float],
    ) -> None:
        self.registry = registry
        self._model = model_name
        self._prefix = prefix
        self._add_times()
        self._add_counters()
        self._add_gauge("num_requests_running", "Requests in the model.", lambda: load().running)
        self._add_gauge("num_requests_waiting", "Requests in the queue.", lambda: load().waiting)
        filled = "Share of the KV cache's positions, slots times context length, that requests have filled."
        self._add_gauge("kv_cache_usage_perc", filled, kv_usage)

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
        answered = "Requests that ended in an answer, or whose client left (abort), by reason."
        self.success = self._counter("request_success", answered, "finished_reason")
        failed = "Requests that ended in a failure, before or during their answer, by HTTP status."
        self.rejected = self._counter("requests_rejected", failed, "code")
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

    def record_work(self, request: EngineRequest, outcome: Outcome) -> None:
        """Record the tokens and times of what the model has answered, for a client that is still there or not."""
        if not isinstance(outcome, Finished):
            return
        self.prompt.labels(self._model).inc(request.generation.prompt_tokens)
        self.generated.labels(self._model).inc(len(outcome.answer.token_ids))
        self.queue.observe(request.waited_s)
        if outcome.answer.token_ids:
            self.first_token.observe(request.first_token_s(outcome))
        for token_ms in outcome.answer.token_ms:
            self.inter_token.observe(token_ms / 1000)
        if outcome.finish_reason != ABORT:
            self.total.observe(request.total_s)

    def record_end(self, end: RequestEnd) -> None:
        """Count a request for an answer that has ended: in one counter, under one label."""
        if end.finish_reason is not None:
            self.success.labels(self._model, end.finish_reason).inc()
        elif end.code == CLIENT_CLOSED:
            self.success.labels(self._model, ABORT).inc()
        else:
            self.rejected.labels(self._model, str(end.code)).inc()
