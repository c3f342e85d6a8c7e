"""Mistral- and Qwen2-shaped decoders under the same maskable layer as Llama's."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from fixtures.flop_counting import counted
from torch import nn
from transformers import MistralConfig, MistralForCausalLM, Qwen2Config, Qwen2ForCausalLM
from transformers.integrations.accelerate import get_balanced_memory, infer_auto_device_map

from ada.config import AdaLlavaMistralConfig, AdaLlavaQwenConfig
from ada.model.families import AdaLlavaMistralForCausalLM, AdaLlavaQwenForCausalLM, make_adaptive
from llava.errors import OptionError
from llava.model import LlavaMistralForCausalLM, LlavaQwenForCausalLM
from llava.model.builder import load_pretrained_model

PROMPT = [1, 17, 33, -200, 60, 70, 31, 7]  # with its image and the latency token, 12 positions
# Sliding: every layer of Mistral's sees eight positions; the window is shorter than the prompt.
FAMILIES = {
    "mistral": (AdaLlavaMistralForCausalLM, AdaLlavaMistralConfig, MistralForCausalLM, MistralConfig, {}),
    "sliding": (
        AdaLlavaMistralForCausalLM,
        AdaLlavaMistralConfig,
        MistralForCausalLM,
        MistralConfig,
        {"sliding_window": 8},
    ),
    "qwen2": (AdaLlavaQwenForCausalLM, AdaLlavaQwenConfig, Qwen2ForCausalLM, Qwen2Config, {}),
}


@pytest.fixture(scope="module")
def make(tower_folder) -> Callable[..., Any]:
    """``make(family, kind, attention)``: an adaptive LLaVA with random weights, grouped queries and random biases."""

    def build(family: str, kind: str = "H", attention: str = "sdpa", **changes: Any) -> Any:
        model_class, config_class, _, _, extra = FAMILIES[family]
        settings = {
            "vocab_size": 90,
            "hidden_size": 64,
            "intermediate_size": 100,
            "num_hidden_layers": 5,
            "num_attention_heads": 8,
            "num_key_value_heads": 4,
            "initializer_range": 0.15,
            "pad_token_id": 0,
            "sliding_window": None,
            "mm_vision_tower": str(tower_folder),
            "mm_hidden_size": 24,
            "mm_projector_type": "mlp2x_gelu",
            "mm_vision_select_layer": -2,
            "mm_use_im_patch_token": False,
            "scheduler_type": kind,
            "num_prefix_layers": 2,
            "scheduler_rank": 1,
            "attn_implementation": attention,
        }
        torch.manual_seed(3)
        model = model_class(config_class(**{**settings, **extra, **changes}))
        for name, parameter in model.named_parameters():
            if name.startswith("scheduler.") or name.endswith("_proj.bias"):
                nn.init.normal_(parameter, std=0.5)
        model.generation_config.eos_token_id = None
        model.get_vision_tower().load_model()
        return model.eval()

    return build


def transformers_own(family: str, model: Any) -> Any:
    """transformers' language model with the same weights."""
    _, _, plain_class, plain_config, _ = FAMILIES[family]
    known = plain_config().to_dict()
    fields = {key: value for key, value in model.config.to_dict().items() if key in known and key != "model_type"}
    plain = plain_class(plain_config(**fields, attn_implementation=model.config._attn_implementation))
    ours = model.state_dict()
    plain.load_state_dict({key: ours[key] for key in plain.state_dict()})
    return plain.eval()


def with_token(model: Any, pixels: torch.Tensor) -> torch.Tensor:
    embeds = model.embed(torch.tensor([PROMPT]), images=pixels[:1]).embeds
    full = torch.tensor([model.units.tunable / (model.units.tunable + 1)])
    return torch.cat([embeds, model.scheduler.encode(full)], dim=1)


@torch.no_grad()
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("kind", ["H", "L"])
@pytest.mark.parametrize("family", FAMILIES)
def test_no_plan_and_a_full_budget_are_bit_equal_to_transformers(make, pixels, family, kind, attention) -> None:
    model = make(family, kind, attention)
    plain, prompt = transformers_own(family, model), torch.tensor([PROMPT])
    spliced = model.embed(prompt, images=pixels[:1]).embeds
    assert torch.equal(model(prompt, images=pixels[:1]).logits, plain(inputs_embeds=spliced).logits)
    embeds = with_token(model, pixels)
    full = model(prompt, images=pixels[:1], latency_budget=1.0).logits
    assert torch.equal(full, plain(inputs_embeds=embeds).logits)
    settings = {"max_new_tokens": 6, "do_sample": False}
    expected = plain.generate(
        inputs_embeds=embeds, attention_mask=torch.ones(embeds.shape[:2]), eos_token_id=None, **settings
    )
    assert torch.equal(model.generate(prompt, images=pixels[:1], latency_budget=1.0, **settings), expected)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["H", "L"])
@pytest.mark.parametrize("family", FAMILIES)
def test_plans_logits_and_tokens_are_those_of_the_slow_version(
    make, slow_class, pixels, ids, ask, close, family, kind
) -> None:
    model = make(family, kind)
    slow, plans = slow_class(model, transformers_own(family, model)), set()
    embeds = slow.embed(PROMPT, pixels[:1])
    for budget in (0.4, 0.6, 0.7, 0.9):
        on, tokens, first = slow.generate(embeds, budget, 4)
        out = ask(model, ids(), 4, images=pixels[:1], latency_budget=budget)
        assert {tuple(x) for x in out.execution_plan.gates().nonzero().tolist()} == on
        assert out.sequences[0].tolist() == tokens
        close(out.logits[0][0], first)
        plans.add(frozenset(on))
    assert len(plans) > 2


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_masked_and_narrow_agree_in_prefill_and_decode(make, close, family) -> None:
    model, prompt = make(family), torch.tensor([[1, 5, 9, 20, 31, 7, 8, 40, 50, 60]])
    for granted in (3, 6, 9):
        steps: dict[bool, list[torch.Tensor]] = {True: [], False: []}
        for narrow in steps:
            torch.manual_seed(granted)  # the random planner draws the same plan twice
            sequence = model.embed(prompt)
            begun, execution = model.begin(sequence, torch.tensor([granted]), "random", narrow=narrow)
            out = model(inputs_embeds=begun.embeds, execution=execution, use_cache=True)
            steps[narrow].append(out.logits)
            for token in (5, 6):
                out = model(
                    torch.tensor([[token]]), execution=execution, past_key_values=out.past_key_values, use_cache=True
                )
                steps[narrow].append(out.logits)
        close(torch.cat(steps[True], dim=1), torch.cat(steps[False], dim=1))


@pytest.mark.parametrize("kind", ["H", "L"])
@pytest.mark.parametrize("family", ["mistral", "qwen2"])
def test_operations_are_those_that_torch_counts(make, family, kind) -> None:
    model, prompt = make(family, kind, attention="eager"), torch.tensor([[1, 5, 9, 20, 31, 7, 8]])
    for budget in (0.4, 0.7, 1.0):
        settings = {"latency_budget": budget, "max_new_tokens": 1, "return_dict_in_generate": True}
        flops, out = counted(functools.partial(model.generate, prompt, **settings))
        assert sum(out.report.prefill_flops.values()) == pytest.approx(flops, rel=1e-4)


@pytest.mark.parametrize("family", ["mistral", "qwen2"])
def test_training_reaches_every_part(make, pixels, ids, family) -> None:
    model = make(family).train()
    labels = torch.tensor([[-100] * 6 + PROMPT[6:]])
    torch.manual_seed(0)
    for _ in range(4):
        model(ids(), labels=labels, images=pixels[:1]).loss.backward()
    learning = {name for name, p in model.named_parameters() if p.requires_grad}
    moved = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert learning - moved <= {"model.image_newline"}


@pytest.mark.parametrize("family", ["mistral", "qwen2"])
def test_a_saved_checkpoint_loads_by_what_its_config_says(
    make, tiny_tokenizer, pixels, ids, close, tmp_path, family
) -> None:
    model = make(family)
    model.save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    again = load_pretrained_model(str(tmp_path), None, "any", device="cpu")[1]
    assert type(again) is type(model)
    with torch.no_grad():
        given = {"images": pixels[:1], "latency_budget": 0.7}
        ours, expected = again(ids(), **given), model(ids(), **given)
    assert ours.execution_plan == expected.execution_plan
    close(ours.logits, expected.logits)


@pytest.mark.parametrize("plain_class", [LlavaMistralForCausalLM, LlavaQwenForCausalLM])
def test_a_plain_llava_is_adopted(make, pixels, ids, plain_class) -> None:
    family = "mistral" if plain_class is LlavaMistralForCausalLM else "qwen2"
    config = make(family).config
    model = plain_class(plain_class.config_class(**{**config.to_dict(), "model_type": None})).eval()
    model.get_vision_tower().load_model()
    make_adaptive(model)
    out = model.generate(
        ids(), images=pixels[:1], latency_budget=0.7, planner="even", max_new_tokens=2, return_dict_in_generate=True
    )
    assert out.execution_plan.share <= 0.7


def test_layers_of_a_kind_after_the_prefix_are_refused(make) -> None:
    late = ["full_attention"] * 3 + ["sliding_attention"] * 2
    with pytest.raises(OptionError, match="sliding_attention is layer 3"):
        make("qwen2", layer_types=late, use_sliding_window=True, sliding_window=8)


@pytest.mark.parametrize("family", ["mistral", "qwen2"])
def test_device_map_auto_over_two_devices_splits_no_layer(make, family) -> None:
    """What ``device_map="auto"``, the default on CUDA, asks transformers for."""
    model = make(family)
    names = model._no_split_modules
    memory = get_balanced_memory(model, {0: 10**9, 1: 10**9, "cpu": 10**9}, no_split_module_classes=names)
    found = infer_auto_device_map(model, max_memory=memory, no_split_module_classes=names)
    assert len(set(found.values())) == 2
    assert all(name.count(".") == 2 for name in found if name.startswith("model.layers.")), found
