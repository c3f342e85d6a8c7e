"""What a call takes as a budget, refuses, and hands back."""

from __future__ import annotations

import pytest
import torch

from ada.budget import LatencyBudget
from ada.scheduling.execution_plan import ExecutionPlan
from llava.errors import OptionError
from llava.model.multimodal.embedded_batch import EmbeddedBatch

IMAGE = -200
PROMPT = [1, 17, 33, IMAGE, 60, 70, 31, 7]
KINDS = ("H", "L")


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_without_tunable_layers_every_budget_runs_all(make_llava, pixels, kind, tmp_path, ids, ask) -> None:
    model = make_llava(kind, prefix=5)
    outputs = [ask(model, ids(), images=pixels[:1], latency_budget=b) for b in (0.3, 1.0)]
    assert torch.equal(outputs[0].sequences, outputs[1].sequences)
    assert outputs[0].execution_plan == ExecutionPlan.full(5, 8)
    assert (outputs[0].report.budget_met, outputs[1].report.budget_met) == (False, True)
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path)
    again.get_vision_tower().load_model()
    assert torch.equal(ask(again, ids(), images=pixels[:1]).sequences, outputs[0].sequences)


@torch.no_grad()
def test_what_generate_and_forward_carry(model, pixels, ids, ask, close) -> None:
    out = ask(model, ids(), images=pixels[:1], latency_budget="70%")
    assert out.execution_plan.to_json() == ExecutionPlan.from_json(out.execution_plan.to_json()).to_json()
    report = out.report
    assert report.requested == 0.7 and report.granted <= 0.7 and report.budget_met
    assert report.granted == pytest.approx(out.execution_plan.share)
    assert report.prompt_tokens == len(PROMPT) - 1 + 4 + 1
    forward = model(ids(), images=pixels[:1], latency_budget=0.7)
    assert forward.execution_plan == out.execution_plan and forward.logits.shape[1] == report.prompt_tokens
    close(forward.logits[:, -1], out.logits[0])
    assert isinstance(model.generate(ids(), images=pixels[:1], latency_budget=0.7, max_new_tokens=1), torch.Tensor)
    assert isinstance(model(ids(), images=pixels[:1], latency_budget=0.7, return_dict=False), tuple)


def test_budgets_may_be_tensors_arrays_and_numbers_of_any_sort(model, pixels, ids, ask) -> None:
    import numpy as np

    expected = ask(model, ids(), images=pixels[:1], latency_budget=0.75).execution_plan
    for budget in ("0.75", "75%", [0.75], (LatencyBudget(0.75),), np.float32(0.75), np.array([0.75])):
        assert ask(model, ids(), images=pixels[:1], latency_budget=budget).execution_plan == expected
    for budget in (torch.tensor(0.75), torch.tensor([0.75], dtype=torch.bfloat16)):
        assert ask(model, ids(), images=pixels[:1], latency_budget=budget).execution_plan == expected
    assert torch.equal(
        model.generate(input_ids=ids(), images=pixels[:1], latency_budget=0.75, max_new_tokens=3),
        model.generate(ids(), images=pixels[:1], latency_budget=0.75, max_new_tokens=3),
    )


@pytest.mark.parametrize("budget", [0, 0.0, -0.5, 1.01, float("nan"), "fast", True, "850ms", [0.5, 0.5], [], [0.0], {}])
def test_wrong_budgets_raise_in_generate_and_forward(model_h, pixels, budget, ids) -> None:
    for call in (model_h.generate, model_h):
        with pytest.raises(OptionError, match="budget"):
            call(ids(), images=pixels[:1], latency_budget=budget)


def test_strict_budgets_are_refused_with_the_least_that_can_be_had(make_llava, pixels, ids, ask) -> None:
    model = make_llava("L", layers=7, prefix=3)  # the least is 3/7, which no decimal is
    ask(model, ids(), images=pixels[:1], latency_budget=0.1)
    with pytest.raises(OptionError, match=r"0\.1 .*minimum reachable budget is 0\.4286"):
        ask(model, ids(), images=pixels[:1], latency_budget=0.1, strict_latency_budget=True)
    out = ask(model, ids(), images=pixels[:1], latency_budget=0.4286, strict_latency_budget=True)
    assert out.report.budget_met and out.execution_plan.layers_run == 3
    with pytest.raises(OptionError, match="minimum reachable"):
        ask(model, ids([1, 4], [1, 5]), latency_budget=[0.9, 0.2], strict_latency_budget=True)


def test_embeddings_are_taken_by_forward_and_refused_by_generate(model, pixels, ids, close) -> None:
    embeds = model.embed(ids(), images=pixels[:1]).embeds
    out = model(inputs_embeds=embeds, latency_budget=0.7)
    close(out.logits, model(ids(), images=pixels[:1], latency_budget=0.7).logits)
    with pytest.raises(OptionError, match="inputs_embeds"):
        model.generate(inputs_embeds=embeds)
    with pytest.raises(OptionError, match="token ids"):
        model.generate()
    assert isinstance(model.begin(EmbeddedBatch(embeds, None, None, None), model.grant(0.7, 1))[0], EmbeddedBatch)
