"""The FLOPs that a report states against those that torch counts while the plan really runs.

The statement is exact; a tolerance of 1 % would hide a token.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from fixtures.flop_counting import counted
from transformers import DynamicCache

from ada.cost.flops import decoder_flops, prefill_flops
from ada.execution.call_state import Execution
from ada.execution.maskable_layer import install
from ada.execution.narrow_cache import NarrowCache
from ada.image_tokens.selectors import SELECTORS
from ada.model.reporting import asked_alone
from ada.scheduling.execution_plan import ExecutionPlan
from ada.scheduling.planners import PLANNERS
from ada.scheduling.units import Units

IMAGE = -200
PROMPT = [1, 17, 33, 60, 70, 31, 7]


@torch.no_grad()
@pytest.mark.parametrize("kind", ["H", "L"])
@pytest.mark.parametrize("key_value_heads", [8, 2])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_decoder_flops_under_random_plans_are_those_counted(make_decoder, kind, key_value_heads, attention) -> None:
    model = make_decoder(layers=6, heads=8, key_value_heads=key_value_heads, mlp=90, attention=attention)
    install(model.layers)
    grid = Units(kind, 6, 3, key_value_heads, 1)
    torch.manual_seed(0)
    for granted in range(0, grid.tunable + 1, max(1, grid.tunable // 4)):
        gates = PLANNERS["random"](grid, torch.tensor([granted]), None)
        run = Execution(grid, torch.tensor([0]), lambda *_, gates=gates: gates, None, NarrowCache(1 << 20))
        cache = DynamicCache()
        given = {"past_key_values": cache, "use_cache": True, "execution": run}
        prefill, _ = counted(lambda given=given: model(inputs_embeds=torch.randn(1, 40, 32), **given))
        decode, _ = counted(lambda given=given: model(inputs_embeds=torch.randn(1, 1, 32), **given))
        (plan,) = run.finish(1)
        for count, queries, keys in ((prefill, 40, 40), (decode, 1, 41)):
            stated = decoder_flops(model.config, grid, plan, queries, keys)
            assert stated["prefix"] + stated["tunable"] == pytest.approx(count, rel=1e-4)


@pytest.mark.parametrize("kind", ["H", "L"])
@pytest.mark.parametrize(
    ("num_images", "changes"),
    [(0, {}), (1, {}), (3, {"attention": "eager"}), (1, {"key_value_heads": 2, "rank": 1})],
    ids=str,
)
def test_report_of_a_generation_states_the_flops_counted(make_llava, pixels, kind, num_images, changes) -> None:
    model = make_llava(kind, layers=6, prefix=2, **changes)
    prompt = torch.tensor([[IMAGE] * num_images + PROMPT])
    images = pixels[:num_images] if num_images else None
    for budget in (0.01, 0.7, 1.0):

        def generate(tokens: int, budget: float = budget) -> Any:
            return model.generate(
                prompt,
                images=images,
                latency_budget=budget,
                max_new_tokens=tokens,
                do_sample=False,
                return_dict_in_generate=True,
            )

        one, out = counted(lambda: generate(1))
        two, _ = counted(lambda: generate(2))
        stated = out.report.prefill_flops
        assert sum(stated.values()) == pytest.approx(one, rel=1e-4)
        assert sum(out.report.decode_flops.values()) == pytest.approx(two - one, rel=1e-4)
        assert (stated["vision_tower"] > 0) == (stated["projector"] > 0) == bool(num_images)
        assert set(stated) == {"vision_tower", "projector", "prefix", "tunable", "scheduler", "lm_head"}


@torch.no_grad()
def test_each_part_states_the_flops_of_its_modules(make_llava, pixels) -> None:
    """Every part of the statement on its own, so that errors cannot cancel."""
    model = make_llava("H", layers=6, prefix=2)
    out = model(torch.tensor([[IMAGE, *PROMPT]]), images=pixels[:1], latency_budget=0.7)
    stated, length = out.report.prefill_flops, out.report.prompt_tokens
    tower, projector = model.get_vision_tower(), model.get_model().mm_projector
    features, hidden = tower(pixels[:1]), torch.randn(1, length, 64)
    calls = {
        "vision_tower": lambda: tower(pixels[:1]),
        "projector": lambda: projector(features),
        "scheduler": lambda: (model.scheduler.encode(torch.zeros(1)), model.scheduler(hidden[:, -1])),
        "lm_head": lambda: model.lm_head(hidden),
    }
    for part, call in calls.items():
        assert stated[part] == pytest.approx(counted(call)[0], rel=1e-4), part
    prefix, _ = counted(
        lambda: [
            layer(hidden, position_embeddings=model.model.rotary_emb(hidden, torch.arange(length)[None]))
            for layer in model.model.layers[:2]
        ]
    )
    assert stated["prefix"] == pytest.approx(prefix, rel=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("feature", ["patch", "cls_patch"])
def test_report_of_a_forward_counts_scored_positions_and_class_tokens(make_llava, pixels, feature) -> None:
    model = make_llava("L", mm_vision_select_feature=feature)
    given = {"images": pixels[:2], "latency_budget": 0.8}
    prompt = torch.tensor([[IMAGE, *PROMPT, IMAGE]])
    count, out = counted(lambda: model(prompt, **given))
    assert sum(out.report.prefill_flops.values()) == pytest.approx(count, rel=1e-4)
    count, out = counted(lambda: model(prompt, **given, logits_to_keep=2))
    assert sum(out.report.prefill_flops.values()) == pytest.approx(count, rel=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["H", "L"])
def test_masked_layers_of_a_mixed_batch_count_in_full(make_llava, pixels, kind) -> None:
    """Two rows with different plans: neither saves anything where they differ, and their reports say so."""
    model = make_llava(kind, layers=6, prefix=2)
    prompt = torch.tensor([[IMAGE, *PROMPT], [IMAGE, *PROMPT[::-1]]])
    given = {"images": pixels[:2], "latency_budget": [0.5, 0.9], "max_new_tokens": 1, "return_dict_in_generate": True}
    count, out = counted(lambda: model.generate(prompt, **given))
    assert sum(sum(report.prefill_flops.values()) for report in out.report) == pytest.approx(count, rel=1e-4)
    for report in out.report:
        assert report.masked_layers > 0 and f"{kind} saves no time" in report.summary()
        assert "different plans" in report.to_json()["masking"]
    alone = model.generate(prompt[:1], **{**given, "images": pixels[:1], "latency_budget": 0.5})
    assert alone.report.masked_layers == 0 and alone.report.masking is None
    assert sum(alone.report.prefill_flops.values()) < sum(out.report[0].prefill_flops.values())


def test_prefill_flops_are_those_of_the_paper() -> None:
    """LLaVA-1.5-7B at 100, 85 and 60 %: 8.6, 7.2 and 5.1 TFLOPs of the language model (its table rounds)."""
    config = type("Config", (), {"hidden_size": 4096, "intermediate_size": 11008, "vocab_size": 32000})()
    config.num_attention_heads = config.num_key_value_heads = 32
    grid, full = Units("L", 32, 16, 32, 8), ExecutionPlan.full(32, 32)
    for layers, tflops in ((32, 8.6), (27, 7.2), (19, 5.1)):
        plan = ExecutionPlan(
            (*full.layers[:layers], *ExecutionPlan.from_gates(torch.zeros(32 - layers, 2, 32)).layers), 32
        )
        total = sum(prefill_flops(config, grid, plan, 644).values())
        assert total / 1e12 == pytest.approx(tflops, abs=0.06)


@pytest.mark.parametrize("kind", ["H", "L"])
@pytest.mark.parametrize("selector", [*SELECTORS, "fastv"])
def test_report_with_fewer_image_tokens_states_the_flops_counted(make_llava, pixels, kind, selector) -> None:
    model = make_llava(kind, layers=6, prefix=2)
    prompt = torch.tensor([[IMAGE, *PROMPT, IMAGE]])
    for budget, amount in ((1.0, "50%"), (0.7, "3/2"), (0.5, 1)):

        def generate(tokens: int, budget: float = budget, amount: Any = amount) -> Any:
            settings = {"latency_budget": budget, "image_tokens": amount, "token_selector": selector}
            settings |= {"max_new_tokens": tokens, "do_sample": False, "return_dict_in_generate": True}
            return model.generate(prompt, images=pixels[:2], **settings)

        one, out = counted(lambda: generate(1))
        two, _ = counted(lambda: generate(2))
        assert sum(out.report.prefill_flops.values()) == pytest.approx(one, rel=1e-4)
        assert sum(out.report.decode_flops.values()) == pytest.approx(two - one, rel=1e-4)


def test_rows_of_different_late_tokens_count_the_widest(make_llava, pixels) -> None:
    model = make_llava("L", layers=6, prefix=2)
    prompt = torch.tensor([[IMAGE, *PROMPT], [IMAGE, *PROMPT[::-1]]])
    settings = {"latency_budget": 1.0, "image_tokens": ["all/1", "all/3"], "token_selector": "fastv"}
    settings |= {"max_new_tokens": 1, "return_dict_in_generate": True}
    count, out = counted(lambda: model.generate(prompt, images=pixels[:2], **settings))
    assert sum(sum(report.prefill_flops.values()) for report in out.report) == pytest.approx(count, rel=1e-4)
    alone = asked_alone(model, out.report[0], out.execution_plan[0])
    own = {**settings, "image_tokens": "all/1", "images": pixels[:1]}
    count, _ = counted(lambda: model.generate(prompt[:1], **own))
    assert sum(alone.prefill_flops.values()) == pytest.approx(count, rel=1e-4)
