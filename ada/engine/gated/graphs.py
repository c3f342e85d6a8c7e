"""Records a decode step once for each number of rows as a CUDA graph, and replays it."""

from __future__ import annotations

import threading
from collections.abc import Callable

import torch

WARM_UPS = 2  # the first compiles the kernels, the second finds libraries' workspaces in use as they will be
_RECORDING = threading.Lock()  # one recording at a time in a process: torch allows no more


Step = Callable[[int], None]
"""Runs a step for a number of rows. It is not kept here: who has the graphs, and slots' memory, would hold itself."""


class StepGraphs:
    """Graphs of one step, by its number of rows. Off CUDA the step runs directly."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._graphs: dict[int, torch.cuda.CUDAGraph] = {}
        self._pool = torch.cuda.graph_pool_handle() if device.type == "cuda" else None
        self._stream: torch.cuda.Stream | None = None  # one for all graphs, as they share the pool
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def knows(self, rows: int) -> bool:
        """Return whether ``run`` needs no recording for ``rows``."""
        return self._device.type != "cuda" or rows in self._graphs

    def record(self, rows: int, step: Step) -> None:
        """Record the step for ``rows``. It runs a few times first, so nothing may be on in it."""
        with _RECORDING, torch.cuda.device(self._device):  # Triton launches on the current device
            self._graphs[rows] = self._recorded(rows, step)

    def _recorded(self, rows: int, step: Step) -> torch.cuda.CUDAGraph:
        stream = self._stream
        assert stream is not None
        stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(stream):
            for _ in range(WARM_UPS):
                step(rows)
        torch.cuda.current_stream(self._device).wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        # Other threads may use the device meanwhile, as an image encoder does.
        with torch.cuda.graph(graph, pool=self._pool, stream=stream, capture_error_mode="thread_local"):
            step(rows)
        return graph

    def run(self, rows: int, step: Step) -> None:
        """Run the step for ``rows``: on CUDA by one launch."""
        if self._device.type == "cuda":
            self._graphs[rows].replay()
        else:
            step(rows)
