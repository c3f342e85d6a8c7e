"""One amount for all images of a prompt: each way of choosing against a slow, obvious version."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ada.image_tokens.amount import shared_counts
from ada.image_tokens.selection import RowTokens, as_selected
from ada.image_tokens.selectors import SELECTORS, Candidates, select_diverse
from ada.image_tokens.shared_selection import select_shared
from llava.constants import IMAGE_TOKEN_INDEX
from llava.model.multimodal.embedded_batch import EmbeddedBatch
from llava.model.multimodal.image_spans import ImageSpan

TAG = IMAGE_TOKEN_INDEX
GREEDY = {"max_new_tokens": 3, "do_sample": False, "pad_token_id": 0}
COMPETING = ("cls", "salient", "divprune")


def images_of(lengths, seed):
    generator = torch.Generator().manual_seed(seed)
    return [
        Candidates(
            torch.randn(length, 6, generator=generator, dtype=torch.float64),
            torch.arange(length)[:, None].expand(length, 2).float(),
            torch.rand(length, generator=generator, dtype=torch.float64),
        )
        for length in lengths
    ]


def score_by_loops(image, token, selector):
    if selector == "cls":
        return float(image.class_attention[token] / image.class_attention.mean())
    return -float(torch.cosine_similarity(image.features[token], image.features.mean(dim=0), dim=0))


def best_by_loops(images, keep, selector):
    """The best token of each image, then the best of all others."""
    scores = {
        (number, token): score_by_loops(image, token, selector)
        for number, image in enumerate(images)
        for token in range(len(image))
    }
    chosen = {max((key for key in scores if key[0] == number), key=scores.get) for number in range(len(images))}
    while len(chosen) < keep:
        chosen.add(max((key for key in scores if key not in chosen), key=scores.get))
    return [sorted(token for image, token in chosen if image == number) for number in range(len(images))]


def diverse_by_loops(images, keep):
    """The token that each image would keep alone, then always the one that is least like all that are kept."""
    tokens = {(n, t): image.features[t].float() for n, image in enumerate(images) for t in range(len(image))}
    chosen = {(number, int(select_diverse(image, 1))) for number, image in enumerate(images)}

    def nearest(key):
        return min(1 - float(torch.cosine_similarity(tokens[key], tokens[other], dim=0)) for other in chosen)

    while len(chosen) < keep:
        chosen.add(max((key for key in tokens if key not in chosen), key=nearest))
    return [sorted(token for image, token in chosen if image == number) for number in range(len(images))]


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 7), min_size=1, max_size=4), st.data(), st.sampled_from(COMPETING))
def test_tokens_of_all_images_compete_and_each_image_keeps_one(lengths, data, selector):
    images = images_of(lengths, sum(lengths))
    keep = data.draw(st.integers(len(lengths), sum(lengths)))
    expected = diverse_by_loops(images, keep) if selector == "divprune" else best_by_loops(images, keep, selector)
    assert [kept.tolist() for kept in select_shared(images, keep, selector)] == expected


@pytest.mark.parametrize("selector", ["random", "grid"])
def test_images_that_do_not_compete_get_their_part(selector):
    images = images_of([4, 12, 8], 0)
    found = select_shared(images, 6, selector)
    for image, kept, count in zip(images, found, shared_counts(6, [4, 12, 8]), strict=True):
        assert kept.tolist() == SELECTORS[selector](image, count).tolist()


@pytest.mark.parametrize("selector", sorted({*SELECTORS} - {"prumerge", "prumerge+"}))
@pytest.mark.parametrize("count", [2, 4])
@torch.no_grad()
def test_shared_amount_of_several_images_is_kept_to(patched, pixels_of, selector, count):
    ids, pixels = torch.tensor([[1, *[TAG, 5] * count, 6]]), pixels_of(count)
    output = patched.generate(
        ids, images=pixels, image_tokens="25% shared", token_selector=selector, return_dict_in_generate=True, **GREEDY
    )
    tokens = output.report.image_tokens
    assert tokens.all == (36,) * count and min(tokens.front) >= 1
    assert sum(tokens.front) == 9 * count and tokens.late == tokens.front
    assert output.report.prompt_tokens == 2 + count + 9 * count + 1  # and the latency token


@torch.no_grad()
def test_shared_amounts_of_rows_answer_as_alone_and_others_are_untouched(patched, pixels_of):
    rows = [[1, TAG, 5, TAG], [1, TAG, TAG, TAG], [1, 6, 7]]
    amounts = ["10 shared", 4, "3 shared"]
    ids = torch.tensor([[*row, *[0] * (4 - len(row))] for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (4 - len(row)) for row in rows])
    pixels = pixels_of(5)
    batch = patched.generate(ids, images=pixels, attention_mask=mask, image_tokens=amounts, **GREEDY)
    for row, amount, own, found in zip(rows, amounts, [pixels[:2], pixels[2:], None], batch, strict=True):
        alone = patched.generate(torch.tensor([row]), images=own, image_tokens=amount, **GREEDY)
        assert found.tolist() == alone[0].tolist()


@torch.no_grad()
def test_shared_amounts_of_later_layers_are_of_all_images(patched, pixels_of):
    ids, pixels = torch.tensor([[1, TAG, 5, TAG, 6]]), pixels_of(2)
    output = patched.generate(
        ids, images=pixels, image_tokens="50% shared/8 shared", return_dict_in_generate=True, **GREEDY
    )
    tokens = output.report.image_tokens
    assert sum(tokens.front) == 36 and sum(tokens.late) == 8 and min(tokens.late) >= 1


def test_later_layers_keep_to_their_amount_of_each_image_where_the_images_compete_for_the_front():
    """24 tokens for two images of 36, of which later layers read a quarter each: 9, whatever entered."""
    spans, none = [ImageSpan(1, 23), ImageSpan(23, 25)], torch.zeros(1, 26, 4)
    row = RowTokens((36, 36), (12, 12), (9, 9), shared=True)
    (settled,) = as_selected(EmbeddedBatch(none, image_spans=[spans]), [row])
    assert (settled.front, settled.late) == ((22, 2), (9, 2))
    (settled,) = as_selected(EmbeddedBatch(none, image_spans=[spans]), [replace(row, late_shared=True)])
    assert sum(settled.late) == 18
