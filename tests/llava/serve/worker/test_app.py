"""A worker's endpoints: upstream's form, the answer that the model gives alone, the figures of the last chunk."""

import asyncio
import itertools

import pytest

from llava.conversation import conv_templates
from llava.generation import SamplingParams, answer
from llava.mm_utils import load_image
from llava.serve.protocol.schemas import OK
from llava.serve.worker.request_limits import RequestLimits

pytestmark = pytest.mark.anyio
PROMPT = "A chat . USER: <image>\nw5 w6 ASSISTANT:"


def alone(loaded, prompt, paths=(), tokens=6, **options) -> str:
    """The same model's greedy answer, without a server."""
    images = [load_image(path) for path in paths]
    result = answer(
        loaded.model,
        loaded.tokenizer,
        loaded.image_processor,
        prompt,
        images,
        sampling=SamplingParams(max_new_tokens=tokens),
        options=options,
    )
    return result.text


async def test_generate_stream_chunks_grow_from_the_prompt_to_the_complete_answer(
    loaded, make_service, client_of, image_file, image_text
):
    async with client_of(make_service()) as client:
        parts = await client.ask(prompt=PROMPT, images=[image_text], max_new_tokens=60, latency_budget="75%")
    assert len(parts) >= 2 and all(part["error_code"] == OK for part in parts)
    texts = [part["text"] for part in parts]
    assert all(text.startswith(PROMPT) for text in texts)
    assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(texts))
    assert all(set(part) == {"text", "error_code"} for part in parts[:-1]), "figures come with the last only"
    expected = alone(loaded, PROMPT, [image_file], 60, latency_budget=0.75)
    assert expected and texts[-1][len(PROMPT) :].strip() == expected


async def test_generate_stream_last_chunk_carries_the_figures(loaded, make_service, client_of, image_text):
    async with client_of(make_service()) as client:
        last = (await client.ask(prompt=PROMPT, images=[image_text], max_new_tokens=6, latency_budget=0.8))[-1]
    ids = len(loaded.tokenizer(PROMPT.replace("<image>", "")).input_ids)
    assert last["finish_reason"] == "length"
    assert last["usage"] == {"prompt_tokens": ids + 4, "completion_tokens": 6, "total_tokens": ids + 10}
    assert len(last["token_ms"]) == 5 and all(ms > 0 for ms in last["token_ms"])
    assert 0 <= last["queue_ms"] < last["time_to_first_token_ms"] < last["total_ms"]
    budget = last["latency_budget"]
    assert (budget["requested"], budget["allowed"], budget["granted"], budget["met"]) == (0.8, 0.8, 0.75, True)
    assert budget["heads"] == [12, 16] and budget["load_multiplier"] == 1
    assert len(budget["plan"]["layers"]) == 4 and "budget 0.8" in budget["summary"]
    assert budget["prefill_gflops"] > 0 and budget["decode_gflops_per_token"] > 0


async def test_generate_stream_concurrent_requests_get_their_own_answers(loaded, make_service, client_of):
    questions = [(f"w{n} w{n + 1}", budget) for n, budget in zip(range(5, 13), (1, 0.75, 0.5, None) * 2, strict=True)]
    expected = [alone(loaded, prompt, tokens=4, latency_budget=budget) for prompt, budget in questions]
    assert len(set(expected)) > 2
    async with client_of(make_service(slots=2)) as client:
        asked = [client.ask(prompt=p, latency_budget=b, max_new_tokens=4) for p, b in questions]
        answers = await asyncio.gather(*asked)
    got = [parts[-1]["text"][len(prompt) :].strip() for parts, (prompt, _) in zip(answers, questions, strict=True)]
    assert got == expected


async def test_generate_stream_stop_text_ends_the_answer_and_is_not_in_it(loaded, make_service, client_of):
    """Of a question whose answer has a new word late: some random models repeat the one they began with."""
    prompts = [f"w5 w{number}" for number in range(6, 60)]
    answers = ((prompt, alone(loaded, prompt, tokens=12)) for prompt in prompts)
    prompt, complete = next((prompt, text) for prompt, text in answers if len(set(text.split())) > 2)
    words = complete.split()
    stop = next(word for index, word in enumerate(words) if index >= 2 and word not in words[:index])
    async with client_of(make_service()) as client:
        for given in (stop, ["nothing like it", stop]):
            last = (await client.ask(prompt=prompt, stop=given, max_new_tokens=12))[-1]
            assert last["text"][len(prompt) :].strip() == complete[: complete.index(stop)].strip()
            assert last["finish_reason"] == "stop" and last["usage"]["completion_tokens"] == words.index(stop) + 1


async def test_generate_stream_answer_is_cut_to_the_limits(make_service, client_of, loaded):
    async with client_of(make_service(limits=RequestLimits(max_output_tokens=3))) as client:
        assert (await client.ask(max_new_tokens=50))[-1]["usage"]["completion_tokens"] == 3
    async with client_of(make_service()) as client:
        usage = (await client.ask(prompt="w5 " * 250, max_new_tokens=50))[-1]["usage"]
    assert usage["total_tokens"] == loaded.context_length == 256


async def test_generate_stream_interval_groups_tokens(make_service, client_of):
    async with client_of(make_service(stream_interval=4)) as client:
        parts = await client.ask(max_new_tokens=12)
    assert len(parts) <= 4 and parts[-1]["usage"]["completion_tokens"] == 12


async def test_generate_stream_top_p_0_and_small_temperatures_are_greedy(make_service, client_of, loaded):
    async with client_of(make_service()) as client:
        for fields in ({"temperature": 1.0, "top_p": 0}, {"temperature": 0.0005, "top_p": 0.9}):
            assert (await client.ask(max_new_tokens=6, **fields))[-1]["text"] == "w5" + alone(loaded, "w5")


async def test_generate_stream_sampling_answers(make_service, client_of):
    async with client_of(make_service()) as client:
        last = (await client.ask(temperature=0.8, top_p=0.9, max_new_tokens=5))[-1]
    assert last["usage"]["completion_tokens"] == 5


async def test_generate_stream_accepts_upstreams_prompt_and_fields(make_service, client_of, image_text):
    conversation = conv_templates["v1"].copy()
    conversation.append_message("USER", "<image>\nw5")
    conversation.append_message("ASSISTANT", None)
    fields = {
        "model": "tiny",
        "prompt": conversation.get_prompt(),
        "temperature": 0.2,
        "top_p": 0.7,
        "max_new_tokens": 4,
        "stop": conversation.sep2,
        "images": [image_text],
    }
    async with client_of(make_service()) as client:
        parts = await client.ask(**fields)
    assert parts[-1]["error_code"] == OK and parts[-1]["text"].startswith(fields["prompt"])


async def test_openapi_document_lists_fields_and_replies(make_service, client_of):
    async with client_of(make_service()) as client:
        schema = (await client.get("/openapi.json")).json()
    fields = schema["components"]["schemas"]["GenerationRequest"]["properties"]
    assert {"prompt", "images", "latency_budget", "latency_budget_policy"} <= set(fields)
    replies = schema["paths"]["/worker_generate_stream"]["post"]["responses"]
    assert "application/octet-stream" in replies["200"]["content"] and "Retry-After" in replies["429"]["headers"]
    assert "application/json" in replies["422"]["content"]


async def test_generate_stream_end_token_is_a_stop(loaded, make_service, client_of, monkeypatch):
    answers = ((f"w{number}", alone(loaded, f"w{number}", tokens=8).split()) for number in range(5, 60))
    prompt, words = next((prompt, words) for prompt, words in answers if len(set(words)) > 1)
    index = next(index for index, word in enumerate(words) if index and word not in words[:index])
    monkeypatch.setattr(loaded.model.generation_config, "eos_token_id", int(words[index][1:]))
    async with client_of(make_service()) as client:
        last = (await client.ask(prompt=prompt, max_new_tokens=8))[-1]
    assert last["finish_reason"] == "stop" and last["usage"]["completion_tokens"] == index + 1


async def test_worker_get_status_names_model_and_queue(make_service, client_of):
    async with client_of(make_service()) as client:
        status = (await client.post("/worker_get_status")).json()
        assert status == {"model_names": ["tiny"], "speed": 1, "queue_length": 0}
        assert (await client.get("/health")).json() == {"status": "ok"}


async def test_ready_draining_worker_answers_503_with_the_reason(make_service, client_of):
    service = make_service()
    async with client_of(service) as client:
        ready = await client.get("/ready")
        assert ready.status_code == 200 and ready.json()["ready"] and ready.json()["context_length"] == 256
        service.drain()
        draining = await client.get("/ready")
        assert draining.status_code == 503 and "shutting down" in draining.json()["reason"]
        assert service.engine.join(60)
