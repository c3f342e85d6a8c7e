"""Records how a request ends, once, wherever that is found out: for the one counter and the one line of the log."""

from __future__ import annotations

import contextvars
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llava.serve.protocol.errors import RequestFailure

CLIENT_CLOSED = 499  # as nginx counts a request whose client has left before its reply was complete

_current: contextvars.ContextVar[RequestEnd | None] = contextvars.ContextVar("request_end", default=None)


@dataclass
class RequestEnd:
    """How one request ended. What is set first stays.

    came: when it did, in epoch seconds. handler: template of the route, "none" for no route. status: of the reply's
    head, 0 where none was sent. complete: whether all of the reply was passed on. failed_status: HTTP status of the
    failure. finish_reason: of an answer that came to its end. error: unexpected, logged with its traceback. detail:
    for the log.
    """

    method: str
    handler: str
    status: int = 0
    complete: bool = False
    failed_status: int | None = None
    finish_reason: str | None = None
    error: BaseException | None = None
    detail: str = ""
    came: float = field(default_factory=time.time)

    def finish(self, reason: str, detail: str) -> None:
        """Record the end of an answer that the model has given: ``stop``, ``length``, or a plug-in's reason."""
        if not self._is_set:
            self.finish_reason, self.detail = reason, detail

    def fail(self, failure: RequestFailure, error: BaseException | None = None) -> None:
        """Record a failure, which may come after the head of the reply; ``error`` is logged with its traceback."""
        self._fail(failure.status, f"{failure.reason}: {failure.message}", error)

    def leave(self, why: str) -> None:
        """Record that the client has left."""
        self._fail(CLIENT_CLOSED, why)

    def _fail(self, status: int, detail: str, error: BaseException | None = None) -> None:
        if not self._is_set:
            self.failed_status, self.detail, self.error = status, detail, error

    @property
    def _is_set(self) -> bool:
        return self.failed_status is not None or self.finish_reason is not None

    @property
    def code(self) -> int:
        """The HTTP status that the request counts as: the one sent, or that of a failure that came after the head."""
        return self.status if self.failed_status is None or self.status >= 400 else self.failed_status


def current_end() -> RequestEnd:
    """Return the record of the request that is being handled; one that nobody reads outside of requests."""
    return _current.get() or RequestEnd("", "")


def is_recording() -> bool:
    """Return whether the end of a request is recorded now, for a log among others."""
    return _current.get() is not None


@contextmanager
def recording(end: RequestEnd) -> Iterator[None]:
    """Make ``end`` the current record within the block, and in the tasks that it starts."""
    token = _current.set(end)
    try:
        yield
    finally:
        _current.reset(token)
