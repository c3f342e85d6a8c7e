"""The batching engine: whatever else runs, a request gets the answer that it gets alone."""

import dataclasses
import functools
import random
import threading

import pytest
import torch

from llava.errors import OptionError
from llava.generation import SamplingParams, answer
from llava.mm_utils import load_image
from llava.model.loaded_model import open_model
from llava.model.multimodal.image_pipeline import ImagePipeline, PreparedImages
from llava.seeded_sampler import SeededSampler
from llava.serve.engine.batch_engine import BatchEngine, refuse_unbatchable
from llava.serve.engine.policy import ServingPolicy
from llava.serve.engine.request import EngineRequest, Finished, GenerationRequest
from llava.serve.engine.request_queue import RequestQueue

WAIT_S = 120
NO_IMAGES = PreparedImages()


class Granting(ServingPolicy):
    """Grants what is requested; records the number of running requests at each grant."""

    def __init__(self) -> None:
        self.running: list[int] = []

    def grant(self, fields, load):
        self.running.append(load.running)
        if fields.get("bad"):
            raise OptionError("a bad request")
        return {name: fields.get(name) for name in ("latency_budget", "planner", "image_tokens", "token_selector")}


@pytest.fixture(scope="module", params=["H", "L"])
def model(request, make_adaptive_checkpoint):
    folder = make_adaptive_checkpoint(scheduler_type=request.param, eos_token_id=None)
    return open_model({"model_path": str(folder), "model_name": "tiny", "device": "cpu"})


@pytest.fixture
def engine(model):
    """``engine(slots, waiting)``: the queue of a running engine, with requests that wait as it starts; its policy."""
    queues = []

    def start(slots=4, waiting=()):
        queue, policy = RequestQueue(slots, 100), Granting()
        for request in waiting:
            queue.put(request)
        worker = BatchEngine(model, queue, policy)
        worker.start()
        queues.append((queue, worker))
        return queue, policy

    yield start
    for queue, worker in queues:
        queue.close()
        assert worker.join(WAIT_S), "it ends once its queue is closed"


def request_of(words="w5 w6", images=NO_IMAGES, stop=(), fields=None, **sampling) -> EngineRequest:
    """A request whose ``done`` event is set at its end."""
    prompt = "<image>\n" * len(images) + f"A chat . USER: {words} ASSISTANT:"
    generation = GenerationRequest(prompt, images, SamplingParams(**sampling), tuple(stop), fields or {}, 10, prompt)
    request = EngineRequest(generation, "id")
    request.done = threading.Event()
    request.wake = lambda: request.outcome is not None and request.done.set()
    return request


def outcome_of(request: EngineRequest):
    assert request.done.wait(WAIT_S), "no outcome"
    return request.outcome


def alone(model, request: EngineRequest):
    """The answer of the same model without an engine."""
    generation = request.generation
    return answer(
        model.model,
        model.tokenizer,
        model.image_processor,
        generation.prompt,
        generation.images,
        sampling=generation.sampling,
        options=generation.fields,
        stop=generation.stop,
    )


def prepared(model, path) -> PreparedImages:
    return ImagePipeline(model.image_processor, model.model.config).prepare([load_image(path)], 1)


def mixed_requests(image: PreparedImages, count: int, tokens: range = range(1, 20)) -> list[EngineRequest]:
    """Requests of mixed budgets, planners, lengths, images and seeds."""
    chance, requests = random.Random(0), []
    for number in range(count):
        words = " ".join(f"w{chance.randrange(1, 30)}" for _ in range(chance.randrange(1, 12)))
        fields = {
            "latency_budget": chance.choice([None, 0.5, 0.6, 0.75, 0.9, 1.0]),
            "planner": chance.choice([None, "even", "last"]),
            "image_tokens": chance.choice([None, 1, "50%", "all/1"]),
        }
        seeded = {"temperature": 1.5, "seed": number} if number % 3 == 0 else {}
        images = image if number % 2 else NO_IMAGES
        requests.append(request_of(words, images, fields=fields, max_new_tokens=chance.choice(tokens), **seeded))
    return requests


def test_batch_engine_mixed_requests_answer_as_alone(model, engine, image_file):
    """Greedy and sampled tokens, plans and finish reasons, whenever a request joins the batch."""
    requests, progress = mixed_requests(prepared(model, image_file), 40), threading.Semaphore(0)
    queue, policy = engine(5)
    pauses = random.Random(1)
    for request in requests:
        request.wake = lambda request=request: (progress.release(), request.outcome is not None and request.done.set())
        queue.put(request)
        for _ in range(pauses.choice([0, 0, 1, 3])):  # every request wakes three times or more
            assert progress.acquire(timeout=WAIT_S)
    batch_sizes = []
    for request in requests:
        got, expected = outcome_of(request), alone(model, request)
        assert isinstance(got, Finished), got
        assert got.answer.token_ids == expected.token_ids
        assert (got.answer.text, got.finish_reason) == (expected.text, "length")
        assert got.answer.metadata["plan"] == expected.metadata["plan"]
        assert len(got.answer.token_ms) == len(expected.token_ids) - 1
        batch_sizes.append(got.mean_batch_size)
    assert max(batch_sizes) > 2 and max(policy.running) == 5, "requests did share steps"


def with_own_stop(model, request: EngineRequest) -> EngineRequest:
    """The same request, which ends at the third word of its answer."""
    words = alone(model, request).text.split()
    generation = dataclasses.replace(request.generation, stop=tuple(words[2:3]))
    stopped = request_of()
    stopped.generation = generation
    return stopped


def test_batch_engine_thirty_two_streams_answer_as_alone(model, engine, image_file):
    """Own plans, seeds and stop texts, more requests than slots: rows leave and others take their place."""
    requests = mixed_requests(prepared(model, image_file), 60, range(60, 90))
    requests = [with_own_stop(model, one) if number % 8 == 1 else one for number, one in enumerate(requests)]
    _, policy = engine(32, requests)
    reasons = []
    for request in requests:
        got, expected = outcome_of(request), alone(model, request)
        assert isinstance(got, Finished), got
        assert (got.text.strip(), got.finish_reason) == (expected.text.strip(), expected.finish_reason)
        assert got.answer.token_ids == expected.token_ids
        assert got.answer.metadata["plan"] == expected.metadata["plan"]
        reasons.append(got.finish_reason)
    assert max(policy.running) == 32 and set(reasons) == {"stop", "length"}


EIGHT = [  # latency budget, image tokens, selector
    (None, None, None),
    (0.5, "all", None),
    (1.0, 1, "grid"),
    (0.9, "75%", "divprune"),
    (0.75, "all/2", "fastv"),
    (0.6, "3/1", "salient/fastv"),
    (None, 2, "fastv"),
    (0.8, "50%", "random"),
]


def test_batch_engine_eight_budgets_amounts_and_selectors_answer_as_alone(model, engine, image_file):
    """Rows whose image tokens were left out before the decoder, in later layers, or not at all; they join and leave."""
    image, requests = prepared(model, image_file), []
    for number, (budget, amount, selector) in enumerate(EIGHT):
        fields = {"latency_budget": budget, "image_tokens": amount, "token_selector": selector}
        words = " ".join(f"w{number + 3 * word}" for word in range(1, 2 + number % 3))
        requests.append(request_of(words, image, fields=fields, max_new_tokens=6 + 5 * (number * 3 % 8)))
    engine(8, requests)  # one joins between two steps
    counts = []
    for request in requests:
        got, expected = outcome_of(request), alone(model, request)
        assert isinstance(got, Finished), got
        assert got.answer.token_ids == expected.token_ids
        assert got.answer.metadata["image_tokens"] == expected.metadata["image_tokens"]
        counts.append(tuple(got.answer.metadata["image_tokens"][name] for name in ("all", "kept", "late")))
        assert got.mean_batch_size > 2
    assert counts == [(4, 4, 4), (4, 4, 4), (4, 1, 1), (4, 3, 3), (4, 4, 2), (4, 3, 1), (4, 4, 2), (4, 2, 2)]


def test_batch_engine_single_sequence_decodes_on_narrow_layers(model, engine, monkeypatch):
    from ada.execution.maskable_layer import GatedLinear

    monkeypatch.setattr(GatedLinear, "forward", lambda *_: pytest.fail("masked"))
    queue, _ = engine()
    request = request_of(fields={"latency_budget": 0.75}, max_new_tokens=4)
    queue.put(request)
    assert isinstance(outcome_of(request), Finished)


def test_batch_engine_stop_text_ends_its_own_sequence_only(model, engine):
    text = alone(model, request_of(max_new_tokens=30)).text
    stop = text.split()[3]
    stopped, stays = request_of(stop=[stop], max_new_tokens=30), request_of(max_new_tokens=60)
    queue, _ = engine()
    for request in (stopped, stays):
        queue.put(request)
    first = outcome_of(stopped)
    assert first.finish_reason == "stop" and first.text.strip() == text[: text.find(stop)].strip()
    assert len(outcome_of(stays).answer.token_ids) == 60


def test_batch_engine_cancelled_request_ends_its_own_sequence_only(model, engine):
    stays, cancelled = request_of(max_new_tokens=200), request_of(max_new_tokens=200)
    emitted = threading.Event()
    cancelled.wake = lambda: (
        cancelled.tokens >= 3 and emitted.set(),
        cancelled.outcome is not None and cancelled.done.set(),
    )
    queue, _ = engine()
    for request in (stays, cancelled):
        queue.put(request)
    assert emitted.wait(WAIT_S)
    cancelled.cancel("client_disconnected")
    tokens = cancelled.tokens
    outcome = outcome_of(cancelled)
    assert outcome.finish_reason == "abort" and len(outcome.answer.token_ids) <= tokens + 2
    assert len(outcome_of(stays).answer.token_ids) == 200


def test_batch_engine_refused_grant_fails_its_own_request_only(model, engine):
    bad, good = request_of(fields={"bad": True}, max_new_tokens=3), request_of(max_new_tokens=3)
    queue, _ = engine()
    queue.put(bad)
    queue.put(good)
    assert isinstance(outcome_of(bad), OptionError) and isinstance(outcome_of(good), Finished)


def test_batch_engine_failed_step_fails_running_requests_and_the_engine_continues(model, engine, monkeypatch):
    queue, _ = engine()
    with monkeypatch.context() as patch:
        patch.setattr(torch.nn.Embedding, "forward", failing_decode(torch.nn.Embedding.forward))
        pair = [request_of(max_new_tokens=3), request_of(max_new_tokens=3)]
        for request in pair:
            queue.put(request)
        assert [type(outcome_of(request)) for request in pair] == [MemoryError, MemoryError]
    again = request_of(max_new_tokens=3)
    queue.put(again)
    assert isinstance(outcome_of(again), Finished)


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_batch_engine_failed_choice_of_a_token_fails_its_own_request_only(model, engine, monkeypatch, failing):
    """As where one row's logits are not finite: nothing can be drawn from them."""
    requests = [request_of(f"w{number}", max_new_tokens=30, temperature=1.5, seed=number) for number in (5, 6, 7)]
    choose = SeededSampler.__call__

    def fail(self, input_ids, scores):
        if self._generator.initial_seed() == 5 + failing and input_ids.shape[1] >= 4:
            scores = scores * float("nan")
        return choose(self, input_ids, scores)

    queue, _ = engine()
    with monkeypatch.context() as patch:
        patch.setattr(SeededSampler, "__call__", fail)
        for request in requests:
            queue.put(request)
        outcomes = [outcome_of(request) for request in requests]
    failed = outcomes.pop(failing)
    assert isinstance(failed, RuntimeError), failed
    del requests[failing]
    for request, outcome in zip(requests, outcomes, strict=True):
        assert isinstance(outcome, Finished), outcome
        assert outcome.answer.token_ids == alone(model, request).token_ids


def failing_decode(forward):
    @functools.wraps(forward)
    def fail(self, ids):
        if ids.numel() <= 2:  # the last tokens of two rows; prompts have more
            raise MemoryError("out of memory")
        return forward(self, ids)

    return fail


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("repetition_penalty", 1.2),
        ("min_new_tokens", 5),
        ("min_length", 3),
        ("suppress_tokens", [4]),
        ("bad_words_ids", [[4]]),
        ("forced_eos_token_id", 2),
    ],
)
def test_refuse_unbatchable_setting_of_the_model_is_named_with_the_flag(model, monkeypatch, name, value):
    monkeypatch.setattr(model.model.generation_config, name, value)
    with pytest.raises(OptionError, match=rf"{name} to .*--engine threads"):
        refuse_unbatchable(model.model)
