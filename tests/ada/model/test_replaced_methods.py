"""What research code replaces at run time takes effect under latency budgets too, and reports count what ran."""

import pytest
import torch

from ada.latency.latency_model import Workload
from ada.latency.measure import ModelTimer

IDS = torch.tensor([[1, 5, -200, 6, 7, 8]])
POSITIONS = 5 + 4 + 1  # four of the image, and the latency token


@pytest.fixture
def pixels():
    return torch.randn(1, 3, 28, 28, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def model(make_llava):
    return make_llava()


def test_replaced_method_takes_effect_in_generate_under_a_budget(model, pixels, replace_method) -> None:
    options = {"latency_budget": 0.7, "max_new_tokens": 2, "do_sample": False, "return_dict_in_generate": True}
    before = model.generate(IDS, images=pixels, **options)
    calls = replace_method(model)
    after = model.generate(IDS, images=pixels, **options)
    assert calls
    assert (before.report.prompt_tokens, after.report.prompt_tokens) == (POSITIONS, POSITIONS - 2)
    assert sum(after.report.prefill_flops.values()) < sum(before.report.prefill_flops.values())


def test_replaced_method_takes_effect_in_forward_under_a_budget(model, pixels, replace_method) -> None:
    calls = replace_method(model)
    outputs = model(IDS, images=pixels, latency_budget=0.7)
    assert len(calls) == 1 and outputs.logits.shape[1] == POSITIONS - 2


def test_replaced_method_takes_effect_in_training(model, pixels, replace_method) -> None:
    calls = replace_method(model)
    outputs = model.train()(IDS, images=pixels, labels=IDS.clamp(min=0))
    assert len(calls) == 1 and outputs.logits.shape[1] == outputs.labels.shape[1] == POSITIONS - 2


def test_replaced_method_takes_effect_in_calibration(model, replace_method) -> None:
    calls = replace_method(model)
    ModelTimer(model)(Workload(40, model.units.tunable, 1))
    assert len(calls) >= 1
