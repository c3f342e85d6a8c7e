"""Records when each token of an answer was there, and stops the generation when it is cancelled."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from typing import Any

import torch
from transformers import StoppingCriteria


class TokenClock(StoppingCriteria):  # type: ignore[misc]
    """The clock of one answer, by ``time.perf_counter`` in seconds.

    ``start``: when the question was asked, that is when the clock was made; ``called``: when ``generate`` began;
    ``stamps``: when each token was there. ``generate(clock=...)`` puts it first among its stopping criteria.
    ``on_token`` sees each token of an answer of one row once it is stamped, and may end the answer: it returns why, or
    None; the reason stays in ``ended_by``.
    """

    def __init__(self, cancelled: threading.Event | None = None) -> None:
        self.cancelled = cancelled
        self.start = time.perf_counter()
        self.called: float | None = None
        self.stamps: list[float] = []
        self.on_token: Callable[[int], str | None] | None = None
        self.ended_by: str | None = None

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        """Stamp a token; return (rows,) bool: whether to stop, for every row alike."""
        self.tick(input_ids.device, input_ids[0, -1] if len(input_ids) == 1 else None)
        stop = self.ended_by is not None or (self.cancelled is not None and self.cancelled.is_set())
        return torch.full((input_ids.shape[0],), stop, device=input_ids.device)

    def tick(self, device: torch.device, token: torch.Tensor | int | None = None) -> None:
        """Stamp a token now, once ``device`` has computed it; ``on_token`` sees its id."""
        if device.type == "cuda":
            torch.cuda.current_stream(device).synchronize()  # kernels were only launched so far; others' do not matter
        self.stamps.append(time.perf_counter())
        if self.on_token is not None and token is not None:
            self.ended_by = self.ended_by or self.on_token(int(token))

    def token_ms(self) -> list[float]:
        """Return the inter-token latencies in milliseconds: one for each token after the first."""
        return [(later - earlier) * 1000 for earlier, later in itertools.pairwise(self.stamps)]

    def timing(self) -> dict[str, float]:
        """Return ``time_to_first_token_ms``, ``tokens_per_second`` (of the tokens after the first; 0 where there are
        none) and ``new_tokens``.
        """
        first = self.stamps[0] if self.stamps else time.perf_counter()
        later = len(self.stamps) - 1
        span = self.stamps[-1] - first if later > 0 else 0.0
        return {
            "time_to_first_token_ms": (first - self.start) * 1000,
            "tokens_per_second": later / span if span > 0 else 0.0,
            "new_tokens": float(len(self.stamps)),
        }
