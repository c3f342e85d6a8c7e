"""The worker's queue: order, bounds, load, closing."""

import pytest

from llava.generation import Answer, SamplingParams
from llava.model.multimodal.image_pipeline import PreparedImages
from llava.serve.engine.request import EngineRequest, Finished, GenerationRequest
from llava.serve.engine.request_queue import Load, RequestQueue
from llava.serve.protocol.errors import RequestFailure


def request_of(number: int = 0) -> EngineRequest:
    return EngineRequest(GenerationRequest("w5", PreparedImages(), SamplingParams(), (), {}, 2, "w5"), str(number))


def finished(reason: str = "length") -> Finished:
    return Finished(Answer("w", [3], {}), "w", reason, {})


@pytest.fixture
def queue() -> RequestQueue:
    """A queue for one request that runs and one that waits."""
    return RequestQueue(slots=1, max_waiting=1)


def test_request_queue_returns_requests_in_the_order_they_came() -> None:
    queue, requests = RequestQueue(slots=2, max_waiting=3), [request_of(number) for number in range(3)]
    for request in requests:
        queue.put(request)
    assert [queue.take(), queue.take_now(), queue.take_now(), queue.take_now()] == [*requests, None]


def test_request_queue_full_refuses_with_429_and_a_time_to_retry(queue) -> None:
    queue.put(request_of())
    queue.put(request_of())
    with pytest.raises(RequestFailure, match="queue is full") as refused:
        queue.put(request_of())
    assert (refused.value.status, refused.value.retry_after) == (429, 1)


def test_request_queue_done_frees_the_slot_and_publishes_the_outcome(queue) -> None:
    ended: list[tuple[EngineRequest, Finished]] = []
    queue = RequestQueue(1, 1, lambda request, outcome: ended.append((request, outcome)))
    request, outcome = request_of(), finished()
    queue.put(request)
    assert queue.take() is request and queue.load() == Load(0, 1, 1, None)
    queue.done(request, outcome)
    assert request.outcome is outcome and ended == [(request, outcome)]
    assert queue.load().running == 0 and queue.requests() == []


def test_request_queue_load_is_a_moving_mean_of_completed_requests_only(queue) -> None:
    for reason, seconds in (("length", 2.0), ("abort", 50.0), ("stop", 1.0)):
        request = request_of()
        queue.put(request)
        queue.take()
        request.begin()
        request.began -= seconds
        queue.done(request, finished(reason))
    assert queue.load().seconds_per_request == pytest.approx(2.0 + 0.2 * (1.0 - 2.0), abs=0.1)
    queue.put(request_of())
    assert queue.load().wait_s == pytest.approx(1.8, abs=0.1)


def test_request_queue_drop_removes_a_waiting_request_only(queue) -> None:
    running, waiting = request_of(), request_of()
    queue.put(running)
    queue.take()
    queue.put(waiting)
    assert (queue.drop(running), queue.drop(waiting), queue.drop(waiting)) == (False, True, False)
    assert queue.requests() == [running]


def test_request_queue_closed_refuses_new_requests_and_returns_those_it_has(queue) -> None:
    request = request_of()
    queue.put(request)
    queue.close()
    with pytest.raises(RequestFailure, match="shutting down") as refused:
        queue.put(request_of())
    assert refused.value.status == 503
    assert queue.take() is request and queue.take() is None, "take does not wait once it is closed"
