"""Sets up logging for the servers: one line for each event, on standard error, uvicorn's included."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

MINUTE_S = 60.0
SECOND_LINES = ("returned without completing response", "Invalid HTTP request received")
FORMAT = "%(asctime)s | %(levelname)s | %(name)s | %(message)s"


def set_up_logging(level: int = logging.INFO) -> None:
    """Configure the root logger of a server's process."""
    logging.basicConfig(level=level, format=FORMAT, datefmt="%Y-%m-%d %H:%M:%S")
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it would log a line for every heartbeat
    logging.getLogger("asyncio").addFilter(OncePerMinute("socket.accept() out of system resource"))
    logging.getLogger("uvicorn.error").addFilter(OncePerMinute("Unsupported upgrade request", "No supported WebSocket"))
    logging.getLogger("uvicorn.error").addFilter(drop_second_line)


def drop_second_line(record: logging.LogRecord) -> bool:
    """Drop uvicorn's lines about replies without an end, about what is no request, and about what was cancelled.

    The requests' own lines say why. At a second signal everything is cancelled, starlette's lifespan as well.
    """
    text = str(record.msg)
    cancelled = record.exc_info is not None and isinstance(record.exc_info[1], asyncio.CancelledError)
    cancelled = cancelled or text.rstrip().endswith("exceptions.CancelledError")
    return not (cancelled or any(known in text for known in SECOND_LINES))


class OncePerMinute(logging.Filter):
    """A filter that passes one message a minute of those that begin with one of the texts, and counts the others.

    Where files run out, asyncio reports every connection that it cannot accept, with a traceback.
    """

    def __init__(self, *beginnings: str, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self.beginnings = beginnings
        self._clock = clock
        self._next = float("-inf")
        self._dropped = 0

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether to log the message."""
        text = record.getMessage()
        if not text.startswith(self.beginnings):
            return True
        if self._clock() < self._next:
            self._dropped += 1
            return False
        self._next = self._clock() + MINUTE_S
        record.msg, record.args = f"{text} (and {self._dropped} times more in the time before)", ()
        self._dropped = 0
        return True
