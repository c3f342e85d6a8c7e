"""Shrunk images: features against transformers' tower, positions by loops, crops, batches, and what is refused."""

import pytest
import torch
from transformers import CLIPVisionModel, SiglipVisionModel

from llava.constants import IMAGE_TOKEN_INDEX
from llava.errors import OptionError
from llava.model.multimodal.anyres_merge import merge_crops

TAG = IMAGE_TOKEN_INDEX
GREEDY = {"max_new_tokens": 3, "do_sample": False, "pad_token_id": 0}
PATCH, PER_SIDE = 4, 6
ANYRES = {"image_aspect_ratio": "anyres", "image_grid_pinpoints": [[24, 48], [48, 24], [48, 48]]}


def resized_by_loops(pixels, side):
    """Pixels (n, 3, S, S) at ``side`` pixels a side: each new pixel a mean, weighted by a triangle as wide as it is."""
    size = pixels.shape[-1]
    scale = size / side
    weights = torch.zeros(side, size)
    for new in range(side):
        centre = (new + 0.5) * scale
        for old in range(size):
            weights[new, old] = max(0.0, 1 - abs(old + 0.5 - centre) / max(1.0, scale))
    weights /= weights.sum(dim=1, keepdim=True)
    return weights @ pixels @ weights.T


def shrunk_features(model, pixels, side):
    """The tower's features of pixels (n, 3, S, S) at ``side`` patches a side, by transformers' own model."""
    tower = model.get_vision_tower()
    kind = CLIPVisionModel if hasattr(tower.vision_tower.vision_model, "pre_layrnorm") else SiglipVisionModel
    theirs = kind.from_pretrained(tower.location).eval()
    states = theirs(
        resized_by_loops(pixels, side * PATCH), interpolate_pos_encoding=True, output_hidden_states=True
    ).hidden_states[tower.layers_run]
    return states[:, 1:] if kind is CLIPVisionModel else states


def nearest_by_loops(side):
    """The nearest of 6 x 6 patches for each of ``side`` by ``side``."""
    lines = [min(range(PER_SIDE), key=lambda i: (abs(i + 0.5 - (j + 0.5) * PER_SIDE / side), -i)) for j in range(side)]
    return [row * PER_SIDE + column for row in lines for column in lines]


@pytest.mark.parametrize("siglip", [False, True])
@pytest.mark.parametrize(("amount", "side"), [(1, 1), (4, 2), (15, 3), ("50%", 4), (35, 5)])
@torch.no_grad()
def test_shrunk_image_is_that_of_transformers_tower_at_the_nearest_positions(
    make_patched, pixels_of, siglip, amount, side
):
    model, pixels = make_patched(siglip=siglip), pixels_of(2)
    ids = torch.tensor([[1, TAG, 5, TAG, 6, 7]])
    batch = model.embed(ids, images=pixels, image_tokens=amount, token_selector="shrink")
    reading = model.read_tokens(batch, amount, "shrink", [None])
    expected = model.get_model().mm_projector(shrunk_features(model, pixels, side))
    nearest, tokens = nearest_by_loops(side), side * side
    assert batch.width == 4 + 2 * tokens and len(set(nearest)) == tokens
    for span, features in zip(reading.batch.image_spans[0], expected, strict=True):
        torch.testing.assert_close(reading.batch.embeds[0, span.start : span.end], features, atol=1e-4, rtol=1e-4)
    first, second = [1 + patch for patch in nearest], [38 + patch for patch in nearest]
    assert reading.batch.position_ids[0].tolist() == [0, *first, 37, *second, 74, 75]
    assert reading.rows[0].to_json() == {"all": 72, "kept": 2 * tokens, "late": 2 * tokens}


@pytest.mark.parametrize("merge_type", ["flat", "spatial", "spatial_unpad"])
@torch.no_grad()
def test_shrunk_crops_are_merged_as_full_ones(make_patched, pixels_of, merge_type):
    model = make_patched(mm_patch_merge_type=merge_type, **ANYRES)
    crops, size = pixels_of(5), (70, 60)
    newline = getattr(model.get_model(), "image_newline", None)
    ids = torch.tensor([[1, TAG, 5]])
    found = {}
    for side in (2, 3, 6):
        features = model.get_model().mm_projector(shrunk_features(model, crops, side))
        found[side] = merge_crops(features, merge_type, (2, 2), size, newline)
    limit = len(found[3])
    batch = model.embed(ids, images=[crops], image_sizes=[size], image_tokens=limit, token_selector="shrink")
    reading = model.read_tokens(batch, limit, "shrink", [None])
    torch.testing.assert_close(reading.batch.embeds[0, 1:-1], found[3], atol=1e-4, rtol=1e-4)
    positions = reading.batch.position_ids[0].tolist()
    assert positions == sorted(set(positions)) and positions[-1] == 1 + len(found[6])
    assert reading.rows[0].all == (len(found[6]),) and reading.rows[0].front == (limit,)
    smaller = model.embed(ids, images=[crops], image_sizes=[size], image_tokens=limit - 1, token_selector="shrink")
    assert smaller.width == 2 + len(found[2])


@torch.no_grad()
def test_rows_of_different_sizes_answer_as_alone(patched, pixels_of):
    rows, amounts = [[1, TAG, 5], [1, 6, 7, 8, TAG], [1, TAG, 9, TAG], [1, 5, 6]], [4, "50%", "all", 9]
    width = max(map(len, rows))
    ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    pixels, first = pixels_of(4), 0
    settings = {"token_selector": "shrink", "latency_budget": 0.7, **GREEDY}
    batch = patched.generate(ids, images=pixels, attention_mask=mask, image_tokens=amounts, **settings)
    for row, amount, found in zip(rows, amounts, batch, strict=True):
        count = row.count(TAG)
        own = {"images": pixels[first : first + count]} if count else {}
        first += count
        alone = patched.generate(torch.tensor([row]), image_tokens=amount, **own, **settings)
        assert found.tolist() == alone[0].tolist()


@torch.no_grad()
def test_image_of_all_tokens_is_not_resized(patched, pixels_of):
    ids, pixels = torch.tensor([[1, TAG, 5]]), pixels_of(1)
    batch = patched.embed(ids, images=pixels, image_tokens=36, token_selector="shrink")
    assert torch.equal(batch.embeds, patched.embed(ids, images=pixels).embeds) and batch.position_ids is None


def test_pixels_of_another_size_are_still_refused(patched):
    with pytest.raises(ValueError, match="doesn't match model"):
        patched.generate(torch.tensor([[1, TAG, 5]]), images=torch.zeros(1, 3, 20, 20), **GREEDY)


def test_fewer_tokens_than_crops_are_refused(make_patched, pixels_of):
    model = make_patched(mm_patch_merge_type="flat", **ANYRES)
    given = {"images": [pixels_of(5)], "image_sizes": [(50, 50)], "token_selector": "shrink"}
    with pytest.raises(OptionError, match="leaves 4 tokens for an image; this image of 5 crops has at least 5"):
        model.generate(torch.tensor([[1, TAG, 5]]), image_tokens=4, **given, **GREEDY)


def test_auto_is_refused(patched, pixels_of):
    with pytest.raises(OptionError, match="'auto' with the token selector 'shrink'"):
        patched.generate(
            torch.tensor([[1, TAG, 5]]), images=pixels_of(1), image_tokens="auto", token_selector="shrink", **GREEDY
        )
