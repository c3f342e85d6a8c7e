"""The clients of a hostile load against a server that stalls, in simulated time."""

import asyncio
import math
import selectors

import pytest

from ada.bench.hostile import clients
from ada.bench.hostile.clients import HostileClients
from ada.bench.hostile.workload import HostileRequest, draw_hostile, draw_small
from ada.bench.load.figures import percentile
from ada.bench.load.workload import arrivals

ANSWER_S, STALL_S, PERIOD_S = 0.03, 1.0, 1.75


class SimulatedTime(selectors.DefaultSelector):
    """A clock that passes only while an event loop waits, and then at once."""

    now_s = 0.0

    def select(self, timeout=None):
        self.now_s += timeout or 0.0
        return super().select(0)

    def perf_counter(self) -> float:
        return self.now_s

    def run(self, coroutine):
        """Run a coroutine by this clock."""
        loop = asyncio.SelectorEventLoop(self)
        loop.time = self.perf_counter
        try:
            return loop.run_until_complete(coroutine)
        finally:
            loop.close()


def answer_s(at_s: float) -> float:
    """Return how long an answer takes that is asked for at this second."""
    into_period_s = math.fmod(at_s, PERIOD_S)
    return max(0.0, STALL_S - into_period_s) + ANSWER_S


class StallingServer(HostileClients):
    """Answers any number of requests at a time, but none while it stalls: for ``STALL_S`` of every ``PERIOD_S``."""

    def __init__(self, clock: SimulatedTime) -> None:
        super().__init__("nowhere", "tiny", 4)
        self.clock = clock

    async def _send(self, client, request: HostileRequest) -> tuple[int, None]:
        await asyncio.sleep(answer_s(self.clock.now_s))
        return 200, None


class BusyMachine(StallingServer):
    """Takes a second to send a request, in which the machine of the clients does nothing else."""

    async def _send(self, client, request: HostileRequest) -> tuple[int, None]:
        self.clock.now_s += 1.0
        return 200, None


@pytest.fixture
def clock(monkeypatch) -> SimulatedTime:
    simulated = SimulatedTime()
    monkeypatch.setattr(clients, "time", simulated)
    return simulated


def test_stalls_delay_every_small_request_that_is_due_in_them(clock) -> None:
    times = arrivals(1000, 8.0)
    ends = clock.run(StallingServer(clock).send(draw_small(1000, 0), times, draw_hostile(200, 0, 0), 4))
    ends = sorted((end for end in ends if end.request.is_small), key=lambda end: end.due_s)
    assert [end.due_s for end in ends] == times
    assert [end.total_s for end in ends] == pytest.approx([answer_s(at_s) for at_s in times], abs=1e-6)
    assert percentile([end.total_s for end in ends], 0.95) > 0.9, "clients that wait for their answers would see 0.03"


def test_small_request_that_is_sent_late_is_timed_from_when_it_was_due(clock) -> None:
    ends = clock.run(BusyMachine(clock).send(draw_small(3, 0), [0.0, 0.25, 0.5]))
    assert [(end.due_s, end.total_s) for end in ends] == [(0.0, 1.0), (0.25, 1.75), (0.5, 2.5)]
