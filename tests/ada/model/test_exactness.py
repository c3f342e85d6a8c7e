"""The whole model: exact without a plan, and true to the method under one."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch

from ada.scheduling.execution_plan import ExecutionPlan
from llava.model.language_model.llava_llama import LlavaConfig, LlavaLlamaForCausalLM

IMAGE = -200
KINDS = ("H", "L")


def prompt_with_token(model, prompt: torch.Tensor, images: Any) -> torch.Tensor:
    """Spliced embeddings with the latency token of a full budget after them (1, T + 1, D)."""
    embeds = model.embed(prompt, images=images).embeds
    full = torch.tensor([model.units.tunable / (model.units.tunable + 1)])
    return torch.cat([embeds, model.scheduler.encode(full)], dim=1)


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_plan_and_a_full_budget_are_bit_equal_to_plain_models(
    make_llava, plain_of, pixels, kind, attention, dtype, ids
) -> None:
    model = make_llava(kind, attention=attention).to(dtype)
    transformers_own = plain_of(model)
    config = LlavaConfig(**{**model.config.to_dict(), "model_type": "llava_llama"}, attn_implementation=attention)
    plain = LlavaLlamaForCausalLM(config)
    plain.get_vision_tower().load_model()
    plain.to(dtype).eval()
    plain.load_state_dict(model.state_dict(), strict=False)
    images = pixels[:1].to(dtype)

    spliced = model.embed(ids(), images=images).embeds
    expected = transformers_own(inputs_embeds=spliced).logits
    assert torch.equal(plain(ids(), images=images).logits, expected)
    assert torch.equal(model(ids(), images=images).logits, expected), "no budget: no latency token, no plan"

    with_token = prompt_with_token(model, ids(), images)
    expected = transformers_own(inputs_embeds=with_token).logits
    assert torch.equal(model(ids(), images=images, latency_budget=1.0).logits, expected)
    settings = {"max_new_tokens": 6, "do_sample": False, "return_dict_in_generate": True, "output_logits": True}
    reference = transformers_own.generate(
        inputs_embeds=with_token, attention_mask=torch.ones(with_token.shape[:2]), eos_token_id=None, **settings
    )
    for budget in (1.0, None):
        ours = model.generate(ids(), images=images, latency_budget=budget, engine="transformers", **settings)
        assert torch.equal(ours.sequences, reference.sequences)
        assert all(torch.equal(a, b) for a, b in zip(ours.logits, reference.logits, strict=True))


def switches(plan: ExecutionPlan) -> set[tuple[int, int, int]]:
    return {tuple(x) for x in plan.gates().nonzero().tolist()}


@torch.no_grad()
@pytest.mark.parametrize(
    "shape",
    [
        {"kind": "H"},
        {"kind": "H", "rank": 1, "prefix": 1},
        {"kind": "H", "rank": 8, "prefix": 3},
        {"kind": "H", "heads": 4, "key_value_heads": 4, "rank": 4, "layers": 7, "prefix": 3},
        {"kind": "H", "heads": 2, "key_value_heads": 2, "rank": 1, "prefix": 3},
        {"kind": "H", "key_value_heads": 4, "rank": 2},
        {"kind": "H", "key_value_heads": 2, "rank": 1, "prefix": 1},
        {"kind": "H", "head_dim": 16, "rank": 2},
        {"kind": "L"},
        {"kind": "L", "prefix": 1, "layers": 8},
        {"kind": "L", "key_value_heads": 2, "prefix": 3, "layers": 8},
        {"kind": "H", "attention": "eager", "key_value_heads": 4, "rank": 1},
    ],
    ids=lambda shape: "-".join(str(v) for v in shape.values()),
)
def test_plans_logits_and_tokens_are_those_of_the_slow_version(
    make_llava, slow_of, pixels, shape, ids, ask, close
) -> None:
    """Another seed for each shape; prompts of several lengths, with no, one and three images."""
    draw = random.Random(str(shape))
    model = make_llava(**shape, seed=draw.randrange(1000))
    slow, seen = slow_of(model), set()
    for count in (0, 1, 3):
        prompt = [1] + [draw.randrange(3, 90) for _ in range(draw.randrange(1, 9))]
        for _ in range(count):
            prompt.insert(draw.randrange(len(prompt) + 1), IMAGE)
        images = pixels[:count] if count else None
        embeds = slow.embed(prompt, images)
        for budget in (0.01, draw.randrange(60, 100) / 100, draw.randrange(80, 101) / 100):
            on, tokens, first = slow.generate(embeds, budget, 3)
            out = ask(model, ids(prompt), 3, images=images, latency_budget=budget)
            assert switches(out.execution_plan) == on
            assert out.sequences[0].tolist() == tokens
            close(out.logits[0][0], first)
            seen.add(frozenset(on))
    assert len(seen) > 2, "the prompts and budgets must lead to several plans"


@torch.no_grad()
def test_masked_and_narrow_agree_in_prefill_and_decode(model, pixels, close) -> None:
    generator = torch.Generator().manual_seed(3)
    for case in range(6):
        prompt = torch.randint(3, 90, (1, 4 + case), generator=generator)
        granted = torch.randint(0, model.units.tunable + 1, (1,), generator=generator)
        sequence = model.embed(prompt)
        logits = {}
        for narrow in (True, False):
            torch.manual_seed(case)  # the random planner draws the same plan twice
            begun, execution = model.begin(sequence, granted, "random", narrow=narrow)
            out = model(inputs_embeds=begun.embeds, execution=execution, use_cache=True)
            steps = [out.logits]
            for token in (5, 6, 7):
                step = torch.tensor([[token]])
                out = model(step, execution=execution, past_key_values=out.past_key_values, use_cache=True)
                steps.append(out.logits)
            logits[narrow] = torch.cat(steps, dim=1)
        close(logits[True], logits[False])


@torch.no_grad()
def test_all_tunable_layers_off_is_the_prefix_alone(model, plain_of, pixels, ids) -> None:
    out = model(ids(), images=pixels[:1], latency_budget=0.001, output_hidden_states=True)
    assert out.execution_plan.layers_run == 2 and not out.report.budget_met
    prefix = plain_of(model)
    prefix.model.layers = prefix.model.layers[:2]
    token = model.scheduler.encode(torch.zeros(1))
    embeds = torch.cat([model.embed(ids(), images=pixels[:1]).embeds, token], dim=1)
    expected = prefix(inputs_embeds=embeds, output_hidden_states=True)
    assert torch.equal(out.logits, expected.logits)
    assert len(out.hidden_states) == 6, "an entry for every layer, the skipped ones too"
    for ours, theirs in zip(out.hidden_states[:2], expected.hidden_states[:2], strict=True):
        assert torch.equal(ours, theirs)
    assert all(torch.equal(state, out.hidden_states[2]) for state in out.hidden_states[3:5])


def test_gradients_in_evaluation_mode_are_those_of_the_masked_model(model, pixels, ids) -> None:
    gradients = []
    for narrow in (True, False):
        sequence = model.embed(ids(), images=pixels[:1])
        begun, execution = model.begin(sequence, model.grant(0.75, 1), narrow=narrow)
        model(inputs_embeds=begun.embeds, execution=execution).logits.square().sum().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
        model.zero_grad()
    for name, expected in gradients[1].items():  # the layers that run narrow learn too
        gradient, scale = gradients[0].get(name, torch.zeros_like(expected)), expected.abs().max().item()
        torch.testing.assert_close(gradient, expected, atol=1e-4 * scale, rtol=1e-3)
