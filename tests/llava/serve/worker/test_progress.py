"""What a client that follows its request learns before the answer: position, what is decided, the first token."""

import asyncio
import json
import time

import pytest

from llava.generation import Answer, SamplingParams
from llava.model.multimodal.image_pipeline import PreparedImages
from llava.serve.engine.policy import Policies, ServingPolicy, granted_options
from llava.serve.engine.request import EngineRequest, Finished, GenerationRequest
from llava.serve.engine.request_queue import Load, RequestQueue
from llava.serve.worker import response_stream
from llava.serve.worker.request_limits import RequestLimits
from llava.serve.worker.response_stream import ResponseStream

pytestmark = pytest.mark.anyio


def question(progress: bool = True) -> GenerationRequest:
    fields = {"progress": progress}
    return GenerationRequest("w5", PreparedImages(), SamplingParams(), (), fields, 2, "w5")


def finished(text: str) -> Finished:
    timing = {"time_to_first_token_ms": 1.0, "tokens_per_second": 0.0, "new_tokens": 1.0}
    return Finished(Answer(text, [3], timing, {}, [], "length"), text, "length", {})


class Reader:
    """Reads a stream's chunks one by one. queue: has one slot, so that all requests but one wait."""

    def __init__(self, progress: bool = True) -> None:
        self.queue = RequestQueue(slots=1, max_waiting=9)
        self.stream = ResponseStream(question(progress), "one", self.queue, RequestLimits(), 1)
        self.request = self.stream.request
        self.chunks = self.stream.chunks(Policies())

    async def next(self) -> dict:
        part = json.loads((await asyncio.wait_for(anext(self.chunks), 60)).rstrip(b"\0"))
        assert part.pop("error_code") == 0
        return part


async def test_waiting_client_learns_its_position_and_then_that_it_is_its_turn(monkeypatch) -> None:
    monkeypatch.setattr(response_stream, "POSITION_S", 0.01)
    others, reader = [EngineRequest(question(), str(number)) for number in range(2)], Reader()
    for request in (*others, reader.request):
        reader.queue.put(request)
    assert await reader.next() == {"text": "w5", "queue_position": 3}
    assert (await reader.next()).get("queue_position", 3) == 3, "says that it still waits"
    reader.queue.take()
    while (await reader.next()).get("queue_position") != 2:
        pass
    reader.queue.drop(others[1])
    assert reader.queue.take() is reader.request
    reader.request.begin()
    while (await reader.next()).get("queue_position") != 0:
        pass


async def test_client_learns_notes_and_first_token_once_each() -> None:
    reader = Reader()
    reader.request.begin()
    assert await reader.next() == {"text": "w5", "queue_position": 0}
    reader.request.note({"plan": [1]})
    assert await reader.next() == {"text": "w5", "plan": [1]}
    reader.request.emit("w", 1)
    took_ms = (await reader.next())["time_to_first_token_ms"]
    assert 0 < took_ms <= 1000 * (time.perf_counter() - reader.request.arrived)
    reader.request.note({"plan": [0]})
    assert await reader.next() == {"text": "w5w", "plan": [0]}
    reader.request.emit("ww", 2)
    assert await reader.next() == {"text": "w5ww"}
    reader.request.end(finished("ww"))
    assert (await reader.next())["finish_reason"] == "length"


async def test_client_that_does_not_follow_gets_text_only() -> None:
    reader = Reader(progress=False)
    reader.queue.put(reader.request)
    asyncio.get_running_loop().call_later(0.05, reader.request.emit, "w", 1)
    reader.request.note({"plan": [1]})
    assert await reader.next() == {"text": "w5w"}


class Watched(ServingPolicy):
    def grant(self, fields, load):
        return {"granted": load.waiting}

    def watch(self, publish):
        return {"on_plan": publish}

    def state(self):
        return {"budgets": [1]}


def test_options_of_a_request_that_is_followed_publish_what_is_decided() -> None:
    policy, request = Policies([Watched(), ServingPolicy()]), EngineRequest(question(), "one")
    options = granted_options(policy, request, Load(2, 1, 1, None))
    options["on_plan"]({"plan": 5})
    assert options["granted"] == 2 and request.notes == {"plan": 5}
    unwatched = granted_options(policy, EngineRequest(question(False), "two"), Load(0, 1, 1, None))
    assert unwatched == {"granted": 0}


def test_state_of_all_policies_is_said_at_ready() -> None:
    assert Policies([Watched(), ServingPolicy()]).state() == {"budgets": [1]}
    with pytest.raises(ValueError, match="budgets"):
        Policies([Watched(), Watched()]).state()
