"""Counts and times a server's requests for Prometheus, under the names that vLLM's server has for them."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector

from llava.serve.middleware.request_end import RequestEnd

SECONDS_BUCKETS = (0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class HttpMetrics:
    """Requests by route, method and status, their duration, and the process's memory, time and files, in ``registry``.

    Every request is counted once, as it ends. The labels' values are bounded, whatever clients send.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        labels = ["handler", "method", "status"]
        text = "Requests that ended, by route, method and HTTP status; 499 where the client left first."
        self._requests = Counter("http_requests_total", text, labels, registry=self.registry)
        text = "Time from a request's head to the end of its reply."
        self._seconds = Histogram(
            "http_request_duration_seconds", text, ["handler"], buckets=SECONDS_BUCKETS, registry=self.registry
        )
        ProcessCollector(registry=self.registry)

    def record(self, end: RequestEnd, elapsed_s: float) -> None:
        """Count a request that has ended."""
        self._requests.labels(end.handler, end.method, str(end.code)).inc()
        self._seconds.labels(end.handler).observe(elapsed_s)
