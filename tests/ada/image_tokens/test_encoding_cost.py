"""Operations of a report under every front selector, against those that torch counts while it answers."""

import pytest
import torch
from fixtures.flop_counting import counted

from ada.image_tokens.selectors import SELECTORS
from llava.constants import IMAGE_TOKEN_INDEX

TAG = IMAGE_TOKEN_INDEX
ANYRES = {"image_aspect_ratio": "anyres", "image_grid_pinpoints": [[24, 48], [48, 24], [48, 48]]}
SETTINGS = {"max_new_tokens": 1, "do_sample": False, "pad_token_id": 0, "return_dict_in_generate": True}


def counted_and_reported(model, **call):
    count, output = counted(lambda: model.generate(**call, **SETTINGS))
    return count, sum(output.report.prefill_flops.values())


@pytest.mark.parametrize("selector", SELECTORS)
@pytest.mark.parametrize("amount", ["all", 9, "25% shared", "50%/4"])
def test_report_of_any_selector_counts_the_operations_of_two_images(patched, pixels_of, selector, amount):
    ids = torch.tensor([[1, TAG, 5, TAG, 6]])
    call = {"images": pixels_of(2), "image_tokens": amount, "token_selector": selector}
    counted, reported = counted_and_reported(patched, inputs=ids, latency_budget=0.7, **call)
    assert reported == pytest.approx(counted, rel=1e-3)


@pytest.mark.parametrize("selector", ["cls", "divprune", "shrink", "grid"])
@pytest.mark.parametrize("merge_type", ["flat", "spatial_unpad"])
def test_report_counts_the_operations_of_crops(make_patched, pixels_of, selector, merge_type):
    model = make_patched(mm_patch_merge_type=merge_type, **ANYRES)
    call = {"images": [pixels_of(5)], "image_sizes": [(70, 60)], "image_tokens": "30%", "token_selector": selector}
    counted, reported = counted_and_reported(model, inputs=torch.tensor([[1, TAG, 5]]), **call)
    assert reported == pytest.approx(counted, rel=1e-3)


@pytest.mark.parametrize("selector", ["salient", "shrink"])
def test_report_counts_the_operations_of_a_siglip_tower(make_patched, pixels_of, selector):
    call = {"images": pixels_of(1), "image_tokens": "30%", "token_selector": selector}
    counted, reported = counted_and_reported(make_patched(siglip=True), inputs=torch.tensor([[1, TAG, 5]]), **call)
    assert reported == pytest.approx(counted, rel=1e-3)


def test_report_counts_the_operations_of_several_scales(make_llava):
    model = make_llava("H", s2=True, s2_scales="28,56", mm_hidden_size=48)
    call = {"images": torch.randn(1, 3, 56, 56), "image_tokens": 2, "token_selector": "salient"}
    counted, reported = counted_and_reported(model, inputs=torch.tensor([[1, TAG, 5]]), **call)
    assert reported == pytest.approx(counted, rel=1e-3)
