"""The batching engine: whoever comes and goes beside it, a request gets the answer that it gets alone."""

import functools
import random
import threading
import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import DynamicCache

from llava.errors import OptionError
from llava.generation import SamplingParams, answer
from llava.kv_cache import join_rows, take_row
from llava.mm_utils import load_image
from llava.model.loaded_model import open_model
from llava.serve.engine.batch_engine import BatchEngine, refuse_unbatchable
from llava.serve.engine.policy import ServingPolicy
from llava.serve.engine.request import EngineRequest, Finished, GenerationRequest
from llava.serve.engine.request_queue import RequestQueue

WAIT_S = 120


class Granting(ServingPolicy):
    """Grants what is asked; remembers the load at each grant."""

    def __init__(self) -> None:
        self.running: list[int] = []

    def grant(self, fields, load):
        self.running.append(load.running)
        if fields.get("bad"):
            raise OptionError("a bad one")
        return {"latency_budget": fields.get("latency_budget"), "planner": fields.get("planner")}


@pytest.fixture(scope="module", params=["H", "L"])
def model(request, make_adaptive_checkpoint):
    folder = make_adaptive_checkpoint(scheduler_type=request.param, eos_token_id=None)
    return open_model({"model_path": str(folder), "model_name": "tiny", "device": "cpu"})


@pytest.fixture
def engine(model):
    """``engine(slots)``: a queue with a running engine behind it, and its policy."""
    queues = []

    def start(slots=4):
        queue, policy = RequestQueue(slots, 100), Granting()
        worker = BatchEngine(model, queue, policy)
        worker.start()
        queues.append((queue, worker))
        return queue, policy

    yield start
    for queue, worker in queues:
        queue.close()
        assert worker.join(WAIT_S), "it ends once its queue is closed"


def job_of(words="w5 w6", images=(), stop=(), fields=None, **sampling) -> EngineRequest:
    prompt = "<image>\n" * len(images) + f"A chat . USER: {words} ASSISTANT:"
    job = EngineRequest(
        GenerationRequest(prompt, tuple(images), SamplingParams(**sampling), tuple(stop), fields or {}, 10, prompt),
        "id",
    )
    job.done = threading.Event()
    job.wake = lambda: job.outcome is not None and job.done.set()
    return job


def outcome_of(job: EngineRequest):
    assert job.done.wait(WAIT_S), "no outcome"
    return job.outcome


def alone(model, job: EngineRequest):
    question = job.question
    return answer(
        model.model,
        model.tokenizer,
        model.image_processor,
        question.prompt,
        question.images,
        sampling=question.sampling,
        options=question.fields,
        stop=question.stop,
    )


def test_each_gets_the_answer_that_it_gets_alone(model, engine, picture):
    """Mixed budgets, planners, lengths, pictures and seeds, at random moments: greedy and drawn tokens, and plans."""
    chance, image = random.Random(0), load_image(picture)
    jobs = []
    for number in range(40):
        words = " ".join(f"w{chance.randrange(1, 30)}" for _ in range(chance.randrange(1, 12)))
        fields = {
            "latency_budget": chance.choice([None, 0.5, 0.6, 0.75, 0.9, 1.0]),
            "planner": chance.choice([None, "even", "last"]),
        }
        seeded = {"temperature": 1.5, "seed": number} if number % 3 == 0 else {}
        images = [image] * (number % 2)
        jobs.append(job_of(words, images, fields=fields, max_new_tokens=chance.randrange(1, 20), **seeded))
    queue, policy = engine(5)
    for job in jobs:
        queue.put(job)
        time.sleep(chance.choice([0, 0, 0.01, 0.03]))
    batches = []
    for job in jobs:
        got, expected = outcome_of(job), alone(model, job)
        assert isinstance(got, Finished), got
        assert got.answer.token_ids == expected.token_ids
        assert (got.answer.text, got.finish_reason) == (expected.text, "length")
        assert got.answer.facts["plan"] == expected.facts["plan"]
        assert len(got.answer.token_ms) == len(expected.token_ids) - 1
        batches.append(got.batch)
    assert max(batches) > 2 and max(policy.running) == 5, "they did share steps"


def test_one_at_a_time_stays_narrow(model, engine, monkeypatch):
    """A row that is alone decodes on its narrow layers: nothing is masked."""
    from ada.execution.maskable_layer import GatedLinear

    monkeypatch.setattr(GatedLinear, "forward", lambda *_: pytest.fail("masked"))
    queue, _ = engine()
    job = job_of(fields={"latency_budget": 0.75}, max_new_tokens=4)
    queue.put(job)
    assert isinstance(outcome_of(job), Finished)


def test_a_stop_text_and_a_gone_client_end_their_own_row_only(model, engine):
    queue, _ = engine()
    whole = alone(model, job_of(max_new_tokens=30)).text
    stop = whole.split()[3]
    stopped = job_of(stop=[stop], max_new_tokens=30)
    stays, gone = job_of(max_new_tokens=200), job_of(max_new_tokens=200)
    said = threading.Event()
    gone.wake = lambda: (gone.tokens >= 3 and said.set(), gone.outcome is not None and gone.done.set())
    for job in (stopped, stays, gone):
        queue.put(job)
    assert said.wait(WAIT_S)
    gone.cancel("client_gone")
    told = gone.tokens
    aborted = outcome_of(gone)
    assert aborted.finish_reason == "abort" and len(aborted.answer.token_ids) <= told + 2
    first = outcome_of(stopped)
    assert first.finish_reason == "stop" and first.text.strip() == whole[: whole.find(stop)].strip()
    assert len(outcome_of(stays).answer.token_ids) == 200


def test_a_bad_request_fails_alone_and_a_failed_step_is_told_to_all(model, engine, monkeypatch):
    queue, _ = engine()
    bad, good = job_of(fields={"bad": True}, max_new_tokens=3), job_of(max_new_tokens=3)
    queue.put(bad)
    queue.put(good)
    assert isinstance(outcome_of(bad), OptionError) and isinstance(outcome_of(good), Finished)
    with monkeypatch.context() as patch:
        patch.setattr(type(model.model), "forward", failing_decode(type(model.model).forward))
        pair = [job_of(max_new_tokens=3), job_of(max_new_tokens=3)]
        for job in pair:
            queue.put(job)
        assert [type(outcome_of(job)) for job in pair] == [MemoryError, MemoryError]
    again = job_of(max_new_tokens=3)
    queue.put(again)
    assert isinstance(outcome_of(again), Finished), "it goes on"


def failing_decode(forward):
    @functools.wraps(forward)
    def fail(self, *args, **kwargs):
        if kwargs.get("input_ids") is not None and kwargs["input_ids"].shape[1] == 1:
            raise MemoryError("no room")
        return forward(self, *args, **kwargs)

    return fail


def test_models_whose_answers_a_batch_would_change_are_refused(model, monkeypatch):
    monkeypatch.setattr(model.model.generation_config, "repetition_penalty", 1.2)
    with pytest.raises(OptionError, match=r"repetition_penalty 1\.2.*--engine threads"):
        refuse_unbatchable(model.model)


HEADS = st.one_of(st.none(), st.sets(st.integers(0, 3)).map(lambda kept: tuple(sorted(kept))))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_rows_come_out_of_a_batch_as_they_went_in(data):
    """Whatever each row holds, and however long it is; a batch's own heads are one row's only where all agree."""
    count = data.draw(st.integers(1, 4))
    heads = [[None, *data.draw(st.lists(HEADS, min_size=2, max_size=2))] for _ in range(count)]
    rows = []
    for own in heads:
        length = data.draw(st.integers(1, 5))
        cache = DynamicCache()
        for layer, kept in enumerate(own):
            if kept != ():
                shape = (1, 4 if kept is None else len(kept), length, 2)
                cache.update(torch.randn(shape), torch.randn(shape), layer)
        rows.append(take_row(cache, 0, length, own, own))
    held = [layer[0] if len(set(layer)) == 1 else None for layer in zip(*heads, strict=True)]
    batch = join_rows(rows, held, 4)
    for place, row in enumerate(rows):
        again = take_row(batch, place, row.length, held, row.heads)
        for mine, other in zip(row.layers, again.layers, strict=True):
            assert (mine is None) == (other is None)
            assert mine is None or all(torch.equal(a, b) for a, b in zip(mine, other, strict=True))
