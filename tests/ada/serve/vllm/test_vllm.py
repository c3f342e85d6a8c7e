"""AdaLLaVA-L in vLLM answers as it does here: requests of all budgets in one batch, also with images."""

from __future__ import annotations

import random

import pytest
import torch

from llava.constants import IMAGE_TOKEN_INDEX
from llava.errors import OptionError
from llava.model.builder import load_pretrained_model

vllm = pytest.importorskip("vllm", exc_type=ImportError)
from ada.serve.vllm.model import check  # noqa: E402
from ada.serve.vllm.prompt_embeds import prompt_embeds  # noqa: E402

pytestmark = pytest.mark.slow  # vLLM takes half a minute to start
BUDGETS = (1.0, 0.8, 0.7, 0.6, 0.5)
TOKENS = 24
SETTINGS = {
    "dtype": "float32",
    "enforce_eager": True,
    "max_model_len": 256,
    "max_num_seqs": 8,
    "enable_prompt_embeds": True,
    "enable_prefix_caching": False,
    "enable_chunked_prefill": False,
}


@pytest.fixture(scope="module")
def checkpoint(make_adaptive_checkpoint):
    """A random model of kind L that never ends an answer by itself, with heads of a size that vLLM's kernels have."""
    sizes = {"hidden_size": 128, "head_dim": 32, "num_hidden_layers": 8, "initializer_range": 0.3}
    return make_adaptive_checkpoint("L", eos_token_id=None, **sizes)


@pytest.fixture(scope="module")
def here(checkpoint):
    return load_pretrained_model(str(checkpoint), None, "tiny", device="cpu")[1]


@pytest.fixture(scope="module")
def engine(checkpoint):
    patch = pytest.MonkeyPatch()
    patch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    patch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    yield vllm.LLM(model=str(checkpoint), **SETTINGS)
    patch.undo()


@pytest.mark.parametrize("images", [0, 1])
def test_requests_of_all_budgets_in_one_batch_are_answered_as_alone(here, engine, images) -> None:
    draw = random.Random(images)
    side = here.get_vision_tower().config.image_size
    prompts, answers, plans = [], [], set()
    for number in range(15):
        budget, words = BUDGETS[number % len(BUDGETS)], [draw.randrange(5, 30) for _ in range(draw.randrange(4, 40))]
        ids = torch.tensor([[1, *[IMAGE_TOKEN_INDEX] * images, *words]])
        given = {"images": torch.randn(1, 3, side, side), "image_sizes": [(side, side)]} if images else {}
        output = here.generate(
            ids,
            **given,
            latency_budget=budget,
            image_tokens="all",
            max_new_tokens=TOKENS,
            do_sample=False,
            return_dict_in_generate=True,
        )
        prompts.append({"prompt_embeds": prompt_embeds(here, ids, budget, **given)})
        answers.append(output.sequences[0].tolist())
        plans.add(str(output.execution_plan))
    assert len(plans) > 4, "requests differ in what runs"
    outputs = engine.generate(prompts, vllm.SamplingParams(temperature=0, max_tokens=TOKENS, ignore_eos=True))
    assert [list(output.outputs[0].token_ids) for output in outputs] == answers


def test_prompt_without_a_latency_token_runs_all_layers(here, engine) -> None:
    ids, answer = [1, 7, 8, 9, 10], []
    for _ in range(TOKENS):
        answer.append(int(here(torch.tensor([ids + answer])).logits[0, -1].argmax()))
    [output] = engine.generate(
        [{"prompt_token_ids": ids}], vllm.SamplingParams(temperature=0, max_tokens=TOKENS, ignore_eos=True)
    )
    assert list(output.outputs[0].token_ids) == answer


def test_request_whose_cache_was_dropped_keeps_its_plan(here, checkpoint, monkeypatch) -> None:
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    few = {"num_gpu_blocks_override": 6, "block_size": 32, "max_model_len": 96, "disable_log_stats": False}
    scarce = vllm.LLM(model=str(checkpoint), **{**SETTINGS, **few})
    prompts, answers = [], []
    for number in range(6):
        ids = torch.tensor([[1, *range(5 + number, 25 + number)]])
        given = {"latency_budget": BUDGETS[1 + number % 4], "max_new_tokens": 60, "do_sample": False}
        answers.append(here.generate(ids, **given)[0].tolist())
        prompts.append({"prompt_embeds": prompt_embeds(here, ids, given["latency_budget"])})
    outputs = scarce.generate(prompts, vllm.SamplingParams(temperature=0, max_tokens=60, ignore_eos=True))
    assert [list(output.outputs[0].token_ids) for output in outputs] == answers
    dropped = [metric.value for metric in scarce.get_metrics() if metric.name == "vllm:num_preemptions"]
    assert sum(dropped) > 0


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("enable_prefix_caching", True, "needs enable_prefix_caching=False"),
        ("enable_chunked_prefill", True, "needs enable_chunked_prefill=False"),
        ("enforce_eager", False, "needs enforce_eager=True"),
    ],
)
def test_settings_under_which_plans_would_be_wrong_are_refused(engine, checkpoint, setting, value, message) -> None:
    config = vllm.EngineArgs(model=str(checkpoint), **{**SETTINGS, setting: value}).create_engine_config()
    with pytest.raises(OptionError, match=message):
        check(config)


def test_kind_h_is_refused(engine, checkpoint) -> None:
    config = vllm.EngineArgs(model=str(checkpoint), **SETTINGS).create_engine_config()
    config.model_config.hf_config.scheduler_type = "H"
    with pytest.raises(OptionError, match="only kind L"):
        check(config)
