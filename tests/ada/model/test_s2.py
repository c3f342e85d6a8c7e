"""A tower that reads several scales, under budgets: it runs as often as it has crops, and reports and costs say so."""

import pytest
import torch

from ada.cost.estimate import estimate
from ada.cost.hardware import HARDWARE
from ada.cost.plans import plan_of_budget
from ada.cost.sizes import sizes_of
from ada.latency.device_profile import DeviceFingerprint

IDS = torch.tensor([[1, 5, -200, 6, 7, 8]])
SCALES = {"s2": True, "s2_scales": "28,56", "mm_hidden_size": 48}


@pytest.fixture(scope="module")
def models(make_llava):
    return make_llava(), make_llava(**SCALES)


def test_report_counts_the_crops_of_every_scale(models) -> None:
    reports = []
    for model, side in zip(models, (28, 56), strict=True):
        pixels = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(1))
        options = {"latency_budget": 0.7, "max_new_tokens": 2, "return_dict_in_generate": True}
        reports.append(model.generate(IDS, images=pixels, **options).report)
    plain, scaled = reports
    assert scaled.prefill_flops["vision_tower"] == (1 + 4) * plain.prefill_flops["vision_tower"]
    assert scaled.prompt_tokens == plain.prompt_tokens


def test_calibrations_of_plain_and_scaled_towers_differ(models) -> None:
    plain, scaled = (DeviceFingerprint.of(model).path for model in models)
    assert plain != scaled


def test_sizes_of_a_checkpoint_have_its_crops(make_checkpoint) -> None:
    scaled = sizes_of(str(make_checkpoint(s2=True, s2_scales="16,32,48", mm_hidden_size=72)))
    plain = sizes_of(str(make_checkpoint()))
    assert (plain.crops_per_image, scaled.crops_per_image) == (1, 1 + 4 + 9)
    assert plain.image_tokens == scaled.image_tokens
    assert scaled.projector[0].in_features == 72
    costs = [
        estimate(sizes, plan_of_budget(sizes.units, "1.0", None), HARDWARE["A100-80G"], prompt_tokens=20, gen_tokens=2)
        for sizes in (plain, scaled)
    ]
    flops = [found.prefill["vision_tower"].flops for found in costs]
    assert flops[1] == (1 + 4 + 9) * flops[0] > 0
