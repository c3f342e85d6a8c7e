"""A request's image tokens in a worker: checked before it waits, followed, and said in reply and metrics."""

import asyncio
from types import SimpleNamespace

import pytest
from fixtures.serving import metric_samples
from prometheus_client import CollectorRegistry

from ada.budget import LatencyBudget
from ada.image_tokens.amount import AUTO
from ada.options import generation_options
from ada.serve.budget_policy import BudgetPolicy
from llava.errors import OptionError
from llava.generation import SamplingParams, answer
from llava.mm_utils import load_image
from llava.model.loaded_model import open_model
from llava.serve.engine.request_queue import Load

PROMPT = "<image>\nw5 w6"


def alone(loaded, image_file, options) -> str:
    """The answer of the same model without a server."""
    return answer(
        loaded.model,
        loaded.tokenizer,
        loaded.image_processor,
        PROMPT,
        [load_image(str(image_file))],
        sampling=SamplingParams(max_new_tokens=6),
        options=options,
    ).text


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("fields", "counts"),
    [
        ({}, (4, 4, 4)),
        ({"image_tokens": 1}, (4, 1, 1)),
        ({"image_tokens": "75%", "token_selector": "divprune", "latency_budget": 0.7}, (4, 3, 3)),
        ({"image_tokens": "3/2", "token_selector": "grid/fastv", "latency_budget": 0.7}, (4, 3, 2)),
        ({"image_tokens": "2", "token_selector": " fastv "}, (4, 4, 2)),
    ],
)
async def test_worker_follows_a_requests_image_tokens(
    loaded, make_service, client_of, image_file, image_text, fields, counts
) -> None:
    async with client_of(make_service()) as client:
        last = (await client.ask(prompt=PROMPT, images=[image_text], max_new_tokens=6, **fields))[-1]
    assert tuple(last["image_tokens"][name] for name in ("all", "kept", "late")) == counts
    assert last["text"][len(PROMPT) :].strip() == alone(loaded, image_file, fields)


@pytest.mark.anyio
async def test_worker_counts_usage_and_full_model_at_all_image_tokens(make_service, client_of, image_text) -> None:
    async with client_of(make_service()) as client:
        asked = [{"image_tokens": amount} for amount in ("all", 1)]
        every, one = [
            (await client.ask(prompt=PROMPT, images=[image_text], max_new_tokens=1, **more))[-1] for more in asked
        ]
    assert one["usage"] == every["usage"], "positions that are left out are not given to others"
    reports = [last["latency_budget"] for last in (every, one)]
    assert reports[0]["prefill_gflops"] == reports[0]["whole_prefill_gflops"]
    assert reports[1]["prefill_gflops"] < reports[1]["whole_prefill_gflops"]
    for name in ("whole_prefill_gflops", "whole_decode_gflops_per_token"):
        assert reports[1][name] == pytest.approx(reports[0][name])


@pytest.mark.anyio
async def test_worker_default_image_tokens_hold_for_requests_that_name_none(
    make_service, client_of, image_text
) -> None:
    async with client_of(make_service({"image_tokens": "50%", "token_selector": "grid"})) as client:
        fields = [{}, {"image_tokens": "all"}, {"token_selector": "divprune"}]
        kept = [
            (await client.ask(prompt=PROMPT, images=[image_text], max_new_tokens=1, **more))[-1]["image_tokens"]["kept"]
            for more in fields
        ]
    assert kept == [2, 4, 2]


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("fields", "status", "said"),
    [
        ({"image_tokens": 0}, 400, "image_tokens is 0; expected all, auto"),
        ({"image_tokens": -3}, 400, "image_tokens is -3;"),
        ({"image_tokens": "200%"}, 400, "image_tokens is '200%'"),
        ({"image_tokens": "fast\x1b"}, 400, "image_tokens is 'fast\\x1b'"),
        ({"image_tokens": "9" * 5000}, 400, "expected all, auto"),
        ({"image_tokens": True}, 422, "image_tokens"),
        ({"image_tokens": 0.5}, 422, "image_tokens"),
        ({"image_tokens": ["50%"]}, 422, "image_tokens"),
        ({"image_tokens": "auto"}, 400, "image_tokens is 'auto', and there is no latency budget"),
        (
            {"image_tokens": "auto", "latency_budget": 0.7, "images": []},
            400,
            "image_tokens is 'auto', and there is no image",
        ),
        ({"token_selector": "best"}, 400, "token_selector is 'best'; expected one of random, grid"),
        ({"token_selector": "learned"}, 400, "token_selector is 'learned', and this checkpoint has no token scorer"),
        ({"token_selector": 3}, 422, "token_selector"),
        ({"token_selector": "s" * 101}, 422, "token_selector"),
    ],
)
async def test_worker_refuses_image_tokens_that_it_cannot_follow(
    make_service, client_of, image_text, fields, status, said
) -> None:
    async with client_of(make_service()) as client:
        body = {"prompt": PROMPT, "images": [image_text], "max_new_tokens": 1, **fields}
        if not body["images"]:
            body["prompt"] = "w5"
        reply = await client.post("/worker_generate_stream", json=body)
    assert reply.status_code == status and said in reply.json()["text"] and "--" not in reply.json()["text"]


@pytest.mark.anyio
async def test_worker_metrics_have_the_share_of_image_tokens_that_enter(make_service, client_of, image_text) -> None:
    async with client_of(make_service()) as client:
        asked = [{}, {"image_tokens": "50%"}, {"image_tokens": "25%"}]
        await asyncio.gather(
            *(client.ask(prompt=PROMPT, images=[image_text], max_new_tokens=1, **more) for more in asked)
        )
        await client.ask(prompt="w5", max_new_tokens=1, image_tokens="25%")
        samples = metric_samples((await client.get("/metrics")).text)
    name = "adallava:image_tokens_ratio"
    assert samples[f"{name}_count"] == 3 and samples[f"{name}_sum"] == pytest.approx(1.75)
    assert samples[f"{name}_bucket 0.25"] == 1 and samples[f"{name}_bucket 0.5"] == 2


@pytest.mark.anyio
async def test_worker_text_alone_ignores_the_amount(make_service, client_of) -> None:
    async with client_of(make_service()) as client:
        plain, fewer = [(await client.ask(max_new_tokens=4, **more))[-1] for more in ({}, {"image_tokens": "25%"})]
    assert plain["text"] == fewer["text"] and fewer["image_tokens"] == {"all": 0, "kept": 0, "late": 0}


@pytest.fixture
def plain_policy() -> BudgetPolicy:
    """The policy of a worker whose model was loaded without budgets and image tokens."""
    loaded = SimpleNamespace(model=SimpleNamespace(config=SimpleNamespace()), options={}, name="plain")
    return BudgetPolicy(loaded, {}, CollectorRegistry())


@pytest.mark.parametrize("fields", [{}, {"latency_budget": 1.0}, {"image_tokens": "all"}, {"latency_budget": "100%"}])
def test_plain_worker_takes_what_asks_for_the_full_model(plain_policy, fields) -> None:
    checked = plain_policy.check(fields)
    assert not any(checked.values())
    assert generation_options(plain_policy.model, plain_policy.grant({**fields, **checked}, Load(0, 0, 1, None))) == {}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"latency_budget": 0.9}, "no scheduler"),
        ({"image_tokens": "25%"}, "reads all image tokens"),
        ({"image_tokens": "auto", "latency_budget": 1}, "reads all image tokens"),
        ({"token_selector": "grid"}, "start the worker with --image-tokens all"),
        ({"image_tokens": 0}, "image_tokens is 0"),
    ],
)
def test_plain_worker_refuses_what_asks_for_less(plain_policy, fields, said) -> None:
    with pytest.raises(OptionError, match=said):
        plain_policy.check(fields)


def test_worker_of_a_plain_model_refuses_a_budget_that_nothing_keeps(
    make_checkpoint,
) -> None:
    flags = {"model_path": str(make_checkpoint()), "device": "cpu", "image_tokens": "all", "adaptive_budget": None}
    policy = BudgetPolicy(open_model(flags), flags, CollectorRegistry())
    checked = policy.check({"latency_budget": 0.5, "image_tokens": "auto", "num_images": 1})
    assert (checked["latency_budget"], checked["image_tokens"]) == (LatencyBudget(0.5), AUTO)
    for fields in ({"latency_budget": 0.5}, {"latency_budget": 0.5, "image_tokens": "all"}):
        with pytest.raises(OptionError, match="--latency-budget needs a scheduler"):
            policy.check(fields)


@pytest.mark.anyio
async def test_worker_strict_budget_below_the_layers_minimum_is_met_by_fewer_image_tokens(
    make_service, client_of, image_text
) -> None:
    """Half of the layers always run: 0.45 is out of reach with all tokens."""
    body = {"prompt": PROMPT, "images": [image_text], "max_new_tokens": 1, "latency_budget": 0.45}
    body |= {"latency_budget_policy": "strict"}
    async with client_of(make_service()) as client:
        refused = await client.post("/worker_generate_stream", json=body)
        met = (await client.ask(**body, image_tokens=1))[-1]["latency_budget"]
    assert refused.status_code == 400 and "0.5" in refused.json()["text"]
    assert met["met"] is True and met["prefill_share"] <= 0.45
