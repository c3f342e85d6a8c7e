"""The clock of the load's clients, with a server that answers at once."""

import asyncio
import json

import httpx
import pytest

from ada.bench.load import client
from ada.bench.load.client import Load


class Clock:
    """A clock that is set by hand."""

    now_s = 100.0

    def perf_counter(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch) -> Clock:
    """The clients' clock. Every request takes a second of it, in which their machine does nothing else."""
    clock = Clock()

    def answer(request: httpx.Request) -> httpx.Response:
        clock.now_s += 1.0
        chunk = {"text": "Hi", "error_code": 0, "usage": {"completion_tokens": 1}}
        return httpx.Response(200, content=json.dumps(chunk).encode() + b"\0")

    monkeypatch.setattr(client, "time", clock)
    monkeypatch.setattr(client, "new_client", lambda: httpx.AsyncClient(transport=httpx.MockTransport(answer)))
    return clock


def test_request_that_is_sent_late_is_timed_from_when_it_was_due(clock) -> None:
    results = asyncio.run(Load("http://nowhere").at_times([{"prompt": ""}] * 3, [0.0, 0.0, 0.0]))
    assert [(one.due_s, one.first_s, one.total_s) for one in results] == [
        (0.0, 1.0, 1.0),
        (0.0, 2.0, 2.0),
        (0.0, 3.0, 3.0),
    ]


def test_clients_that_wait_for_their_answers_time_from_when_they_ask(clock) -> None:
    results = asyncio.run(Load("http://nowhere").some_at_a_time([{"prompt": ""}] * 3, 1))
    assert [(one.due_s, one.first_s, one.total_s) for one in results] == [
        (0.0, 1.0, 1.0),
        (1.0, 1.0, 1.0),
        (2.0, 1.0, 1.0),
    ]
