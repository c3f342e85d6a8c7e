"""Every way of generating: batches, padding, beams, samples, caches, threads, modes, copies."""

from __future__ import annotations

import copy
import threading
from typing import Any

import pytest
import torch

from ada.budget import LatencyBudget
from llava.model.language_model.llava_decoder import LlavaCausalLM

IMAGE = -200
PROMPT = [1, 17, 33, IMAGE, 60, 70, 31, 7]


@torch.no_grad()
def test_each_row_of_a_batch_has_its_own_budget_and_equals_itself_alone(model, pixels, ids, ask, close) -> None:
    prompts = [PROMPT, [1, IMAGE, 9], [1, 5, 6, 7, 8, IMAGE, IMAGE, 4], [1, 2, 3, 4]]
    budgets = [0.7, "95%", LatencyBudget(1.0), 0.5]
    owned = [pixels[:1], pixels[1:2], pixels[2:4], None]
    width = max(map(len, prompts))
    for side in ("left", "right"):
        mask = torch.tensor([[1] * len(p) + [0] * (width - len(p)) for p in prompts])
        batch = torch.tensor([p + [0] * (width - len(p)) for p in prompts])
        if side == "left":
            mask, batch = mask.flip(1), torch.tensor([[0] * (width - len(p)) + p for p in prompts])
        # The last row has no tag; a dummy image stands for it, as in training.
        images = torch.cat([pixels, pixels[:1]])
        out = ask(model, batch, images=images, attention_mask=mask, latency_budget=budgets)
        for row, prompt in enumerate(prompts):
            alone = ask(model, ids(prompt), images=owned[row], latency_budget=budgets[row])
            assert out.execution_plan[row] == alone.execution_plan
            assert out.sequences[row].tolist() == alone.sequences[0].tolist()
            close(torch.stack(out.logits)[:, row], torch.stack(alone.logits)[:, 0])
            for field in ("requested", "granted", "budget_met", "layers", "heads", "neuron_groups"):
                assert getattr(out.report[row], field) == getattr(alone.report, field)


@torch.no_grad()
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_padded_row_answers_as_an_unpadded_one(model, pixels, side, ids, ask, close) -> None:
    alone = ask(model, ids(), images=pixels[:1], latency_budget=0.75)
    padding = torch.zeros(1, 3, dtype=torch.long)
    parts = [padding, ids()] if side == "left" else [ids(), padding]
    mask = torch.cat([torch.zeros_like(p) if p is padding else torch.ones_like(p) for p in parts], dim=1)
    out = ask(model, torch.cat(parts, dim=1), images=pixels[:1], attention_mask=mask, latency_budget=0.75)
    assert out.execution_plan == alone.execution_plan and torch.equal(out.sequences, alone.sequences)
    # The same through forward, where the token stands after the row's last real position.
    given = {"images": pixels[:1], "latency_budget": 0.75}
    logits = model(torch.cat(parts, dim=1), attention_mask=mask, **given).logits
    expected = model(ids(), **given).logits
    width = expected.shape[1]
    close(logits[:, :width], expected)  # the splice puts all padding on the right


@torch.no_grad()
def test_beams_samples_and_caches(model, pixels, ids, ask) -> None:
    kwargs = {"images": pixels[:1], "latency_budget": 0.7}
    greedy = ask(model, ids(), **kwargs)
    for other in ({"use_cache": False}, {"cache_implementation": "static"}, {"prompt_lookup_num_tokens": 2}):
        assert torch.equal(ask(model, ids(), **kwargs, **other).sequences, greedy.sequences), other
    several = ask(model, ids(), **kwargs, num_beams=3, num_return_sequences=2)
    assert several.execution_plan == greedy.execution_plan
    assert torch.equal(several.sequences, slow_beams(model, ids(), pixels[:1], greedy.execution_plan))
    prompts = torch.cat([ids(), ids().flip(1)])
    beams = {"num_beams": 2, "latency_budget": [0.7, 0.9]}
    both = ask(model, prompts, images=pixels[:2], **beams)
    for row, budget in enumerate((0.7, 0.9)):
        alone = ask(model, prompts[row : row + 1], images=pixels[row : row + 1], num_beams=2, latency_budget=budget)
        assert both.execution_plan[row] == alone.execution_plan
        assert torch.equal(both.sequences[row], alone.sequences[0])
    drawn = []
    for _ in range(2):
        torch.manual_seed(5)
        out = ask(model, ids(), **kwargs, do_sample=True, temperature=2.0, num_return_sequences=3)
        drawn.append(out.sequences)
        assert out.execution_plan == greedy.execution_plan
    assert torch.equal(*drawn) and len({tuple(row) for row in drawn[0].tolist()}) > 1


def slow_beams(model, prompt, images, plan) -> torch.Tensor:
    """Beam search on the plain model after a copy whose switched-off columns are zero."""
    copied = copy.deepcopy(model)
    for layer, on in zip(copied.model.layers, plan.gates(), strict=True):
        for component, linear in enumerate((layer.self_attn.o_proj, layer.mlp.down_proj)):
            size, longer = divmod(linear.in_features, plan.num_switches)
            sizes = torch.tensor([size + (a < longer) for a in range(plan.num_switches)])
            linear.weight.data *= on[component].repeat_interleave(sizes)
    sequence, _ = model.begin(model.embed(prompt, images=images), model.grant(0.7, 1))
    return super(LlavaCausalLM, copied).generate(
        inputs_embeds=sequence.embeds, max_new_tokens=5, do_sample=False, num_beams=3, num_return_sequences=2
    )


@torch.no_grad()
def test_threads_answer_as_one_by_one(model, pixels, ids) -> None:
    jobs = [(ids([1, IMAGE, 10 + job]), 0.4 + 0.05 * job) for job in range(12)]
    alone = [model.generate(p, images=pixels[:1], latency_budget=b, max_new_tokens=6) for p, b in jobs]
    joint: list[Any] = [None] * len(jobs)
    model.narrow_cache.clear()
    model.narrow_cache.max_bytes, kept = 1, model.narrow_cache.max_bytes  # every thread throws out the others' layers

    def work(index: int) -> None:
        prompt, budget = jobs[index]
        joint[index] = model.generate(prompt, images=pixels[:1], latency_budget=budget, max_new_tokens=6)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(jobs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    model.narrow_cache.max_bytes = kept
    assert [x.tolist() for x in joint] == [x.tolist() for x in alone]


def test_generating_in_training_mode_plans_as_in_evaluation(model, pixels, ids, ask) -> None:
    expected = ask(model, ids(), images=pixels[:1], latency_budget=0.7)
    model.train()
    try:
        out = ask(model, ids(), images=pixels[:1], latency_budget=0.7)
    finally:
        model.eval()
    assert out.execution_plan == expected.execution_plan and torch.equal(out.sequences, expected.sequences)


def test_inference_mode_leaves_nothing_after_that_others_cannot_use(model_h, pixels, ids) -> None:
    model_h.narrow_cache.clear()
    kwargs = {"images": pixels[:1], "latency_budget": 0.7, "max_new_tokens": 3}
    with torch.inference_mode():
        first = model_h.generate(ids(), **kwargs)
    assert torch.equal(model_h.generate(ids(), **kwargs), first)
    with torch.no_grad():
        model_h.narrow_cache.max_bytes, kept = 1, model_h.narrow_cache.max_bytes
        for budget in (0.6, 0.8, 0.9):  # new plans are gathered into the buffers of old ones
            model_h(ids(), images=pixels[:1], latency_budget=budget)
        model_h.narrow_cache.max_bytes = kept
    model_h(ids(), images=pixels[:1], latency_budget=0.7).logits.sum().backward()
    model_h.zero_grad()


def test_a_copy_of_a_model_answers_the_same(model, pixels, ids, ask) -> None:
    expected = ask(model, ids(), images=pixels[:1], latency_budget=0.7)
    copied = copy.deepcopy(model)
    assert torch.equal(ask(copied, ids(), images=pixels[:1], latency_budget=0.7).sequences, expected.sequences)
    assert copied.narrow_cache is not model.narrow_cache
