"""Puts the middleware that every server has around its application, in their order."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI

from llava.serve.hosting.http_metrics import HttpMetrics
from llava.serve.hosting.lifecycle import Lifecycle
from llava.serve.middleware.allowed_hosts import AllowedHosts
from llava.serve.middleware.body_limits import BodyLimits, LimitedBodies
from llava.serve.middleware.cors import add_cors
from llava.serve.middleware.draining import MONITORING, Draining, LastPiece
from llava.serve.middleware.request_end import RequestEnd
from llava.serve.middleware.request_ids import NO_HANDLER, OTHER, RequestIds
from llava.serve.protocol.errors import ErrorFormat, RequestFailure

log = logging.getLogger(__name__)


@dataclass
class Middleware:
    """What every server's requests pass through.

    limits: of bodies, but for those of the paths ``streamed``. quiet: paths that are requested all the time, logged for
    debugging only; None for all. open_paths: those that are answered while the server drains. names: by which it may be
    addressed (``allowed_hosts``), None for any. cors_origins: whose pages may call it. on_end: called once for every
    request, with its end.
    """

    lifecycle: Lifecycle = field(default_factory=Lifecycle)
    limits: BodyLimits = field(default_factory=BodyLimits)
    names: tuple[str, ...] | None = None
    cors_origins: tuple[str, ...] = ()
    streamed: tuple[str, ...] = ()
    error_format: ErrorFormat = RequestFailure.response
    last_piece: LastPiece = RequestFailure.chunk
    quiet: tuple[str, ...] | None = MONITORING
    open_paths: tuple[str, ...] = MONITORING
    on_end: Callable[[RequestEnd], None] = lambda end: None
    metrics: HttpMetrics = field(default_factory=HttpMetrics)

    def install(self, app: FastAPI, *inner: tuple[type, dict[str, Any]]) -> None:
        """Add the middleware to ``app``; ``inner``, with their options, see a request before its body is read."""
        reply: dict[str, Any] = {"error_format": self.error_format}
        app.add_middleware(LimitedBodies, limits=self.limits, streamed=self.streamed, **reply)
        for middleware, options in reversed(inner):
            app.add_middleware(middleware, **options)
        stopping: dict[str, Any] = {"open_paths": self.open_paths, "last_piece": self.last_piece}
        app.add_middleware(Draining, lifecycle=self.lifecycle, **stopping, **reply)
        app.add_middleware(AllowedHosts, names=self.names, **reply)
        add_cors(app, self.cors_origins)
        app.add_middleware(RequestIds, quiet=self.quiet, on_end=self.record, **reply)

    def record(self, end: RequestEnd, elapsed_s: float) -> None:
        """Count a request that has ended."""
        self.metrics.record(end, elapsed_s)
        self.on_end(end)

    def record_refused(self, failure: RequestFailure) -> None:
        """Count and log what was refused before its head was complete."""
        self.metrics.record(RequestEnd(OTHER, NO_HANDLER, failure.status), 0.0)
        log.warning("refused a connection: %d %s: %s", failure.status, failure.reason, failure.message)
