"""The worker's queue: order, bounds, load, promises, closing."""

import math

import pytest

from llava.generation import Answer, SamplingParams
from llava.model.multimodal.image_pipeline import PreparedImages
from llava.serve.engine.promise import UNPROMISED_DUE_S, Pace, Promise
from llava.serve.engine.request import EngineRequest, Finished, GenerationRequest
from llava.serve.engine.request_queue import Load, RequestQueue
from llava.serve.protocol.errors import RequestFailure


def request_of(number: int = 0, promise: Promise | None = None) -> EngineRequest:
    generation = GenerationRequest("w5", PreparedImages(), SamplingParams(), (), {}, 2, "w5", promise)
    return EngineRequest(generation, str(number))


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


def test_request_queue_load_counts_the_wait_in_the_queue_and_from_arrival(queue) -> None:
    request = request_of()
    request.arrived -= 9.0  # its images were read
    queue.put(request)
    queue.take()
    request.begin()
    request.began += 2.0
    load = queue.load(request)
    assert (load.waited_s, load.elapsed_s) == (pytest.approx(2.0, abs=0.5), pytest.approx(11.0, abs=0.5))
    assert request.queue_s == load.elapsed_s and queue.load().waited_s == request_of().waited_s == 0


def test_request_queue_returns_promises_by_due_time_and_lets_no_other_wait_forever() -> None:
    queue = RequestQueue(slots=9, max_waiting=9)
    late, plain, soon = request_of(0, Promise(60.0, 1.0, 0.5)), request_of(1), request_of(2, Promise(3.0, 1.0, 0.5))
    waited = request_of(3)
    waited.arrived -= UNPROMISED_DUE_S
    for request in (late, plain, soon, waited):
        queue.put(request)
    assert [queue.take_now() for _ in range(4)] == [waited, soon, plain, late]


def test_request_queue_refuses_a_promise_that_it_or_another_would_break_and_says_what_is_possible() -> None:
    queue = RequestQueue(slots=1, max_waiting=9)
    queue.put(request_of(0, Promise(30.0, 20.0, 1.0)))
    with pytest.raises(RequestFailure, match="due in 35000 ms, and with 1 waiting it would take 40000 ms") as refused:
        queue.put(request_of(1, Promise(35.0, 20.0, 1.0)))  # after the other
    assert (refused.value.status, refused.value.reason) == (503, "promise_out_of_reach")
    with pytest.raises(RequestFailure, match="due in 21000 ms, and with 1 waiting it would take 40000 ms"):  # after it
        queue.put(request_of(2, Promise(21.0, 20.0, 1.0)))
    queue.put(request_of(3, Promise(41.0, 20.0, 1.0)))
    queue.put(request_of(4))
    assert queue.load().waiting == 3


def test_request_queue_refuses_a_pace_that_as_many_rows_cannot_keep() -> None:
    queue = RequestQueue(slots=2, max_waiting=9)
    promise = Promise.of(1.0, 20.0, None, None, Pace(0.010, lambda rows: 0.004 * rows))
    late = request_of(0, promise)
    late.arrived -= 2 * UNPROMISED_DUE_S  # it is due at no certain time
    queue.put(late)
    queue.put(request_of(1, promise))  # a third one runs when these have ended: never more than two at a time
    queue.put(request_of(2, promise))
    slow = Promise.of(1.0, 20.0, None, None, Pace(0.007, lambda rows: 0.004 * rows))
    with pytest.raises(RequestFailure, match="was to take 7 ms, and takes 8 ms at the minimum with 2 at a time") as no:
        queue.put(request_of(3, slow))
    assert (no.value.status, no.value.reason) == (503, "promise_out_of_reach")
    assert queue.take_now() is late and math.isinf(queue.load(late).first_token_s)


def test_request_queue_counts_the_work_that_running_requests_have_left() -> None:
    queue = RequestQueue(slots=1, max_waiting=9)
    first = request_of()
    queue.put(first)
    queue.take()
    first.begin()
    first.began -= 10.0
    queue.done(first, finished())
    running = request_of(1)
    queue.put(running)
    queue.take()
    running.begin()
    with pytest.raises(RequestFailure, match="it would take 15000 ms"):
        queue.put(request_of(2, Promise(14.0, 5.0, 1.0)))
    queue.put(request_of(3, Promise(15.5, 5.0, 1.0)))


def test_request_queue_ends_a_request_that_has_become_late_and_returns_the_next() -> None:
    queue = RequestQueue(slots=1, max_waiting=9)
    late, next_one = request_of(0, Promise(30.0, 20.0, 1.0)), request_of(1, Promise(90.0, 1.0, 1.0))
    queue.put(late)
    queue.put(next_one)
    late.arrived -= 11.0
    assert queue.take() is next_one and isinstance(late.outcome, RequestFailure)
    assert "it would take 31000 ms at the minimum" in str(late.outcome)


@pytest.mark.parametrize(
    ("due_s", "waited_s", "order"),
    [
        (6.0, 0.0, ["promised", "plain"]),  # 4 s of the other, and 3 s of its work
        (8.0, 0.0, ["plain", "promised"]),
        (6.0, UNPROMISED_DUE_S, ["plain"]),  # it has waited long enough
    ],
)
def test_request_queue_keeps_an_accepted_promise_before_a_later_request_without_one(due_s, waited_s, order) -> None:
    queue = RequestQueue(slots=1, max_waiting=9)
    measured = request_of()
    queue.put(measured)
    queue.take()
    measured.begin()
    measured.began -= 4.0
    queue.done(measured, finished())
    promised, plain = request_of(1, Promise(due_s, 3.0, 1.0)), request_of(2)
    queue.put(promised)
    plain.arrived -= waited_s
    queue.put(plain)
    names, taken = {promised: "promised", plain: "plain"}, []
    while (request := queue.take_now()) is not None:
        taken.append(names[request])
        promised.arrived -= 4.0  # as if it had been answered
        queue.done(request, finished())
    assert taken == order and isinstance(promised.outcome, Finished) == ("promised" in order)


def test_request_queue_load_leaves_those_that_wait_their_time() -> None:
    queue = RequestQueue(slots=1, max_waiting=9)
    requests = [request_of(number, Promise(due, 2.0, 0.5)) for number, due in enumerate((6.0, 10.0, 11.0))]
    for request in requests:
        queue.put(request)
    taken = queue.take()
    spare_s = 11.0 - 2 * 2.0  # the last one's due time less what both of those that wait take
    assert taken is requests[0]
    assert queue.load(taken).first_token_s == pytest.approx(0.5 * spare_s / 2.0, rel=0.01)
    assert math.isinf(queue.load(request_of()).first_token_s) and math.isinf(queue.load().first_token_s)
    queue.take_now()
    queue.take_now()
    assert math.isinf(queue.load(taken).first_token_s)


def test_request_queue_position_counts_those_that_are_taken_before() -> None:
    queue, requests = RequestQueue(slots=1, max_waiting=3), [request_of(number) for number in range(3)]
    for request in requests:
        queue.put(request)
    assert [queue.position(request) for request in requests] == [1, 2, 3]
    assert queue.take() is requests[0]
    queue.drop(requests[1])
    assert [queue.position(request) for request in requests] == [0, 0, 1]
    promised = request_of(3, Promise(due_s=0.5, work_s=0.1, first_s=0.1))
    queue.put(promised)
    assert [queue.position(request) for request in (promised, requests[2])] == [1, 2]
