"""PruMerge and PruMerge+ as token selectors: against the published checkpoints' way, counts, positions, batches."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ada.image_tokens.merged_images import read_patches
from ada.image_tokens.prumerge import PLUS_DENSITY, chosen_patches, counted_patches, merge
from llava.constants import IMAGE_TOKEN_INDEX
from llava.errors import OptionError

TAG = IMAGE_TOKEN_INDEX
GREEDY = {"max_new_tokens": 3, "do_sample": False, "pad_token_id": 0}
SELECTORS = ["prumerge", "prumerge+"]


@given(st.integers(1, 60), st.data(), st.booleans())
def test_counted_patches_are_so_many_the_most_attended_among_them(patches, data, plus):
    attention = torch.rand(patches, generator=torch.Generator().manual_seed(patches))
    count = data.draw(st.integers(0, patches))
    kept = counted_patches(attention, count, plus).tolist()
    assert len(kept) == count and kept == sorted(set(kept))
    attended = sorted(range(patches), key=lambda i: -attention[i])
    assert {*attended[: -(-count // (1 + PLUS_DENSITY)) if plus else count]} <= {*kept}


def test_counted_patches_of_plus_are_at_even_distances():
    attention = torch.zeros(40)
    attention[[7, 21]] = 1.0
    assert counted_patches(attention, 8, plus=True).tolist() == [3, 7, 10, 16, 21, 24, 30, 36]


@pytest.mark.parametrize("selector", SELECTORS)
@torch.no_grad()
def test_without_an_amount_an_image_is_merged_as_its_checkpoint_would(patched, make_patched, pixels_of, selector):
    published = make_patched(token_selecting=selector)
    published.load_state_dict(patched.state_dict())
    pixels, ids = pixels_of(3), torch.tensor([[1, TAG, 5, TAG, TAG]])
    batch = patched.embed(ids, images=pixels, token_selector=selector)
    plus = selector == "prumerge+"
    expected = published.image_features(pixels)
    for number, (span, features) in enumerate(zip(batch.image_spans[0], expected, strict=True)):
        found = batch.embeds[0, span.start : span.end]
        (patches,) = read_patches(patched.get_vision_tower(), pixels[number : number + 1])
        order = chosen_patches(patches.attention, plus).argsort().tolist()  # kept ones by their positions
        torch.testing.assert_close(found, features[[*order, len(order)]], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("selector", SELECTORS)
@pytest.mark.parametrize(("amount", "count"), [(1, 1), (2, 2), ("50%", 18), (36, 36)])
@torch.no_grad()
def test_amount_counts_the_token_for_the_rest_and_positions_are_kept(patched, pixels_of, selector, amount, count):
    pixels, ids = pixels_of(1), torch.tensor([[1, TAG, 5]])
    batch = patched.embed(ids, images=pixels, image_tokens=amount, token_selector=selector)
    reading = patched.read_tokens(batch, amount, selector, [None])
    (patches,) = read_patches(patched.get_vision_tower(), pixels)
    kept = counted_patches(patches.attention, count - 1, selector == "prumerge+")
    expected = patched.get_model().mm_projector(merge(patches, kept))
    torch.testing.assert_close(reading.batch.embeds[0, 1:-1], expected, atol=1e-4, rtol=1e-4)
    assert reading.batch.position_ids[0].tolist() == [0, *(kept + 1).tolist(), 37, 38]
    assert reading.rows[0].to_json() == {"all": 36, "kept": count, "late": count}


@pytest.mark.parametrize("selector", SELECTORS)
@torch.no_grad()
def test_rows_of_different_amounts_answer_as_alone(patched, pixels_of, selector):
    rows, amounts = [[1, TAG, 5], [1, 6, 7, 8, TAG], [1, TAG, 9, TAG], [1, 5, 6]], [4, "50%", "all", 9]
    width = max(map(len, rows))
    ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    pixels, first = pixels_of(4), 0
    settings = {"token_selector": selector, "latency_budget": 0.7, **GREEDY}
    batch = patched.generate(ids, images=pixels, attention_mask=mask, image_tokens=amounts, **settings)
    for row, amount, found in zip(rows, amounts, batch, strict=True):
        count = row.count(TAG)
        own = {"images": pixels[first : first + count]} if count else {}
        first += count
        alone = patched.generate(torch.tensor([row]), image_tokens=amount, **own, **settings)
        assert found.tolist() == alone[0].tolist()


def test_several_crops_and_the_class_token_as_a_feature_are_refused(make_patched, pixels_of):
    model = make_patched(image_aspect_ratio="anyres", image_grid_pinpoints=[[24, 48]])
    ids = torch.tensor([[1, TAG, 5]])
    with pytest.raises(OptionError, match="'prumerge', which merges images of one crop"):
        model.generate(ids, images=[pixels_of(3)], image_sizes=[(20, 40)], token_selector="prumerge", **GREEDY)
    model = make_patched(mm_vision_select_feature="cls_patch")
    with pytest.raises(OptionError, match="also reads the class token"):
        model.generate(ids, images=pixels_of(1), token_selector="prumerge", **GREEDY)
