"""The engine of a thread for each slot: what its requests hold."""

from llava.generation import SamplingParams
from llava.model.multimodal.image_pipeline import PreparedImages
from llava.serve.engine.policy import Policies
from llava.serve.engine.request import EngineRequest, GenerationRequest
from llava.serve.engine.request_queue import RequestQueue
from llava.serve.engine.threads_engine import ThreadsEngine


def test_positions_are_those_of_prompts_and_tokens_of_running_requests(loaded) -> None:
    queue = RequestQueue(slots=2, max_waiting=2)
    engine = ThreadsEngine(loaded, queue, Policies())
    for prompt_tokens in (10, 20, 40):
        generation = GenerationRequest("w5", PreparedImages(), SamplingParams(), (), {}, prompt_tokens, "w5")
        queue.put(EngineRequest(generation, ""))
    assert engine.positions() == 0, "all wait"
    first, second = queue.take(), queue.take()
    first.begin()
    second.begin()
    first.emit("w", 3)
    assert engine.positions() == 10 + 3 + 20
