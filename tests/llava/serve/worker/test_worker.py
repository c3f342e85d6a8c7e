"""A worker's answers: upstream's form, the text that the model gives alone, the budget's figures, the metrics."""

import asyncio
import itertools

import pytest
from prometheus_client.parser import text_string_to_metric_families

from ada.serve.load_controller import LoadController
from llava.conversation import conv_templates
from llava.generation import SamplingParams, answer
from llava.mm_utils import load_image
from llava.serve.protocol.schemas import OK

pytestmark = pytest.mark.anyio
PROMPT = "A chat . USER: <image>\nw5 w6 ASSISTANT:"


def alone(loaded, prompt, pictures=(), tokens=6, **options) -> str:
    """The same model's greedy answer, without a server."""
    images = [load_image(path) for path in pictures]
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


async def test_chunks_grow_from_the_prompt_to_the_whole_answer(loaded, make_service, client_of, picture, image_text):
    async with client_of(make_service()) as client:
        parts = await client.ask(prompt=PROMPT, images=[image_text], max_new_tokens=6, latency_budget="75%")
    assert len(parts) >= 2 and all(part["error_code"] == OK for part in parts)
    texts = [part["text"] for part in parts]
    assert all(text.startswith(PROMPT) for text in texts)
    assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(texts))
    assert all(set(part) == {"text", "error_code"} for part in parts[:-1]), "figures come with the last only"
    expected = alone(loaded, PROMPT, [picture], latency_budget=0.75)
    assert expected and texts[-1][len(PROMPT) :].strip() == expected


async def test_the_last_chunk_carries_the_figures(loaded, make_service, client_of, image_text):
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


async def test_less_budget_runs_less(make_service, client_of):
    async with client_of(make_service()) as client:
        plans = [(await client.ask(max_new_tokens=2, latency_budget=b))[-1]["latency_budget"] for b in (1, 0.5)]
    assert [plan["heads"][0] for plan in plans] == [16, 8]
    assert plans[0]["prefill_gflops"] > plans[1]["prefill_gflops"]


async def test_requests_at_once_get_their_own_answers(loaded, make_service, client_of):
    questions = [(f"w{n} w{n + 1}", budget) for n, budget in zip(range(5, 13), (1, 0.75, 0.5, None) * 2, strict=True)]
    expected = [alone(loaded, prompt, tokens=4, latency_budget=budget) for prompt, budget in questions]
    assert len(set(expected)) > 2
    async with client_of(make_service(slots=2)) as client:
        asked = [client.ask(prompt=p, latency_budget=b, max_new_tokens=4) for p, b in questions]
        answers = await asyncio.gather(*asked)
    got = [parts[-1]["text"][len(prompt) :].strip() for parts, (prompt, _) in zip(answers, questions, strict=True)]
    assert got == expected


async def test_stop_text_ends_the_answer_and_is_not_in_it(loaded, make_service, client_of):
    whole = alone(loaded, "w5 w6", tokens=12)
    words = whole.split()
    stop = next(word for place, word in enumerate(words) if place >= 2 and word not in words[:place])
    async with client_of(make_service()) as client:
        for given in (stop, ["nothing like it", stop]):
            last = (await client.ask(prompt="w5 w6", stop=given, max_new_tokens=12))[-1]
            assert last["text"][len("w5 w6") :].strip() == whole[: whole.index(stop)].strip()
            assert last["finish_reason"] == "stop" and last["usage"]["completion_tokens"] == words.index(stop) + 1


async def test_answers_are_cut_to_the_limits(make_service, client_of, loaded):
    from llava.serve.worker.request_limits import RequestLimits

    async with client_of(make_service(limits=RequestLimits(max_output_tokens=3))) as client:
        assert (await client.ask(max_new_tokens=50))[-1]["usage"]["completion_tokens"] == 3
    async with client_of(make_service()) as client:
        usage = (await client.ask(prompt="w5 " * 250, max_new_tokens=50))[-1]["usage"]
    assert usage["total_tokens"] == loaded.context_length == 256


async def test_several_tokens_a_chunk(make_service, client_of):
    async with client_of(make_service(stream_interval=4)) as client:
        parts = await client.ask(max_new_tokens=12)
    assert len(parts) <= 4 and parts[-1]["usage"]["completion_tokens"] == 12


async def test_a_nucleus_of_nothing_and_a_small_temperature_are_greedy(make_service, client_of, loaded):
    async with client_of(make_service()) as client:
        for fields in ({"temperature": 1.0, "top_p": 0}, {"temperature": 0.0005, "top_p": 0.9}):
            assert (await client.ask(max_new_tokens=6, **fields))[-1]["text"] == "w5" + alone(loaded, "w5")


async def test_sampled_answers_come(make_service, client_of):
    async with client_of(make_service()) as client:
        last = (await client.ask(temperature=0.8, top_p=0.9, max_new_tokens=5))[-1]
    assert last["usage"]["completion_tokens"] == 5


async def test_a_strict_budget_that_cannot_be_kept_is_refused(make_service, client_of):
    async with client_of(make_service()) as client:
        body = {"prompt": "w5", "latency_budget": 0.2, "max_new_tokens": 1}
        loose = (await client.ask(**body))[-1]["latency_budget"]
        assert loose["met"] is False and loose["granted"] == 0.5
        strict = await client.post("/worker_generate_stream", json={**body, "latency_budget_policy": "strict"})
    assert strict.status_code == 400 and "0.2" in strict.json()["text"] and "0.5" in strict.json()["text"]


async def test_load_lowers_budgets_but_not_strict_ones(make_service, client_of):
    async with client_of(make_service({"adaptive_budget": 0.5, "adaptive_patience": 1e6})) as client:
        assert (await client.ask(max_new_tokens=2))[-1]["latency_budget"]["allowed"] is None, "nobody waits for long"
    service = make_service({"adaptive_budget": 0.5, "adaptive_patience": 1e-6, "adaptive_recovery": 1e6})
    async with client_of(service) as client:
        fields = [{}, {"latency_budget": 0.9}, {"latency_budget": 0.9, "latency_budget_policy": "strict"}, {}]
        answers = await asyncio.gather(*(client.ask(max_new_tokens=2, **more) for more in fields))
        figures = await client.get("/metrics")
    budgets = [parts[-1]["latency_budget"] for parts in answers]
    assert [b["requested"] for b in budgets] == [None, 0.9, 0.9, None]
    lowered = [b for b in budgets if b["load_multiplier"] < 1]
    assert len(lowered) >= 2 and all(b["allowed"] == pytest.approx(0.5, abs=1e-3) for b in lowered)
    assert budgets[2]["allowed"] == 0.9 and budgets[2]["granted"] == 0.875 and budgets[2]["load_multiplier"] == 1
    assert figures_of(figures.text)["adallava:budget_downgrades_total"] == len(lowered)


def figures_of(text: str) -> dict[str, float]:
    """Samples by name, with the labels beside the model's."""
    out = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = [value for name, value in sorted(sample.labels.items()) if name != "model_name"]
            out[" ".join([sample.name, *labels])] = sample.value
    return out


async def test_metrics_count_what_happened(make_service, client_of):
    async with client_of(make_service()) as client:
        before = figures_of((await client.get("/metrics")).text)
        await client.ask(prompt="w5 w6", max_new_tokens=4, latency_budget=0.5)
        await client.ask(prompt="w5", max_new_tokens=1, latency_budget=0.2)
        await client.post("/worker_generate_stream", json={"prompt": "w5", "latency_budget": 7})
        after = figures_of((await client.get("/metrics")).text)
    assert before["adallava:generation_tokens_total"] == 0
    expected = {
        "prompt_tokens_total": 3 + 2,
        "generation_tokens_total": 5,
        "time_to_first_token_seconds_count": 2,
        "inter_token_latency_seconds_count": 3,
        "e2e_request_latency_seconds_count": 2,
        "request_queue_time_seconds_count": 2,
        "num_requests_running": 0,
        "num_requests_waiting": 0,
        "request_success_total length": 2,
        "latency_budget_ratio_sum": 1.0,
        "plan_cost_ratio_sum": 1.0,
        "budget_violations_total": 1,
        "budget_downgrades_total": 0,
        "requests_rejected_total 400": 1,
        "budget_multiplier": 1,
    }
    assert {name: after[f"adallava:{name}"] for name in expected} == expected


async def test_status_health_and_readiness(make_service, client_of):
    service = make_service()
    async with client_of(service) as client:
        status = (await client.post("/worker_get_status")).json()
        assert status == {"model_names": ["tiny"], "speed": 1, "queue_length": 0}
        assert (await client.get("/health")).json() == {"status": "ok"}
        ready = await client.get("/ready")
        assert ready.status_code == 200 and ready.json()["ready"] and ready.json()["context_length"] == 256
        service.drain()
        gone = await client.get("/ready")
        assert gone.status_code == 503 and "shutting down" in gone.json()["reason"]
        assert service.engine.join(60)


async def test_upstreams_prompt_and_fields_are_taken(make_service, client_of, image_text):
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


def test_a_model_that_takes_no_budget_cannot_have_adaptive_ones(loaded):
    from types import SimpleNamespace

    from ada.serve.budget_policy import load_controller_from
    from llava.errors import OptionError

    with pytest.raises(OptionError, match="--adaptive-budget needs a model"):
        load_controller_from({"adaptive_budget": 0.5}, SimpleNamespace())
    assert load_controller_from({}, loaded.model) is None
    assert load_controller_from({"adaptive_budget": 0.1}, loaded.model) == LoadController(0.5), (
        "no less than the model can do"
    )


async def test_the_api_describes_itself(make_service, client_of):
    async with client_of(make_service()) as client:
        schema = (await client.get("/openapi.json")).json()
    fields = schema["components"]["schemas"]["GenerationRequest"]["properties"]
    assert {"prompt", "images", "latency_budget", "latency_budget_policy"} <= set(fields)
    replies = schema["paths"]["/worker_generate_stream"]["post"]["responses"]
    assert "application/octet-stream" in replies["200"]["content"] and "Retry-After" in replies["429"]["headers"]
    assert "application/json" in replies["422"]["content"]


async def test_the_models_own_end_is_a_stop(loaded, make_service, client_of, monkeypatch):
    words = alone(loaded, "w5", tokens=8).split()
    place = next(place for place, word in enumerate(words) if place and word not in words[:place])
    monkeypatch.setattr(loaded.model.generation_config, "eos_token_id", int(words[place][1:]))
    async with client_of(make_service()) as client:
        last = (await client.ask(max_new_tokens=8))[-1]
    assert last["finish_reason"] == "stop" and last["usage"]["completion_tokens"] == place + 1


def test_flags_are_upstreams_and_the_plug_ins():
    from llava.serve.model_worker import parse_arguments

    args = parse_arguments(["--adaptive-budget", "0.5", "--latency-budget", "0.8", "--multi-modal"])
    upstreams = {
        "host": "localhost",
        "port": 21002,
        "controller_address": "http://localhost:21001",
        "model_base": None,
        "model_name": None,
        "stream_interval": 1,
        "no_register": False,
        "load_8bit": False,
        "load_4bit": False,
        "use_flash_attn": False,
    }
    assert {name: getattr(args, name) for name in upstreams} == upstreams
    assert (args.adaptive_budget, args.latency_budget) == (0.5, "0.8")


@pytest.mark.parametrize(
    "flags",
    [
        ("--max-queue-length", "-1"),
        ("--limit-model-concurrency", "0"),
        ("--stream-interval", "0"),
        ("--queue-timeout", "0"),
        ("--drain-timeout", "nan"),
        ("--registration-token", "a\nb"),
        ("--adaptive-budget", "1.5"),
        ("--latency-budget", "fast"),
    ],
)
def test_flags_that_cannot_be(adaptive_checkpoint, capsys, flags):
    from llava.serve.model_worker import main

    assert main(["--model-path", str(adaptive_checkpoint), "--device", "cpu", *flags]) == 2
    said = capsys.readouterr().err
    assert (flags[0] in said or "registration token" in said) and "Traceback" not in said
