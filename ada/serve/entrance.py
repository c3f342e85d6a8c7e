"""Counts those on their way into something, so that it is not closed before they have come in."""

from __future__ import annotations

import threading


class Entrance:
    """``with entrance:`` on the way in. Thread-safe."""

    def __init__(self) -> None:
        self._change = threading.Condition()
        self._entering = 0

    def __enter__(self) -> None:
        with self._change:
            self._entering += 1

    def __exit__(self, *_: object) -> None:
        with self._change:
            self._entering -= 1
            self._change.notify_all()

    def wait(self) -> None:
        """Wait until nobody is on the way."""
        with self._change:
            self._change.wait_for(lambda: not self._entering)
