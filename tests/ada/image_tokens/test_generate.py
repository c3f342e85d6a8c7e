"""Answers from a part of the image tokens, against a loop without cache, and rows of a batch against each alone."""

import pytest
import torch

from ada.image_tokens.selectors import SELECTORS, Candidates
from llava.constants import IMAGE_TOKEN_INDEX
from llava.errors import OptionError

NEW = 5
GREEDY = {"max_new_tokens": NEW, "do_sample": False, "pad_token_id": 0}


@pytest.fixture(scope="module")
def plain(make_plain):
    return make_plain(3)


def images_of(count):
    return torch.randn(count, 3, 28, 28, generator=torch.Generator().manual_seed(0))


def continued_by_loop(model, embeds, positions):
    """Greedy tokens of one row, all of it read anew for each by transformers' own decoder."""
    tokens = []
    for _ in range(NEW):
        mask = torch.ones_like(positions)
        outputs = model.model(inputs_embeds=embeds, position_ids=positions, attention_mask=mask, use_cache=False)
        states = outputs.last_hidden_state
        token = model.lm_head(states[:, -1]).argmax(dim=-1)
        tokens.append(int(token))
        embeds = torch.cat([embeds, model.get_input_embeddings()(token)[None]], dim=1)
        positions = torch.cat([positions, positions[:, -1:] + 1], dim=1)
    return tokens


@pytest.mark.parametrize("keep", [1, 2, 3, 4])
def test_generate_fewer_tokens_equals_a_loop_with_gaps_in_the_positions(plain, keep):
    ids, pixels = torch.tensor([[1, 5, IMAGE_TOKEN_INDEX, 6, 7]]), images_of(1)
    with torch.no_grad():
        full = plain.embed(ids, images=pixels).embeds
        features = full[0, 2:6]
        kept = SELECTORS["salient"](Candidates(features, torch.zeros(4, 2)), keep)
        columns = torch.cat([torch.tensor([0, 1]), 2 + kept, torch.tensor([6, 7])])
        expected = continued_by_loop(plain, full[:, columns], columns[None])
    found = plain.generate(ids, images=pixels, image_tokens=keep, **GREEDY)
    assert found[0].tolist() == expected


@pytest.mark.parametrize("kind", ["H", "L"])
def test_generate_rows_of_different_amounts_and_budgets_answer_as_alone(make_llava, kind):
    model = make_llava(kind)
    tag = IMAGE_TOKEN_INDEX
    words = [[1, tag, 5], [1, 6, 7, 8, tag], [1, tag, 9, tag], [1, 5, 6]]
    amounts, budgets = [1, "75%", 2, "all"], [1.0, 0.7, 0.5, 0.8]
    width = max(map(len, words))
    ids = torch.tensor([row + [0] * (width - len(row)) for row in words])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in words])
    pixels = images_of(4)
    batch = model.generate(
        ids, images=pixels, attention_mask=mask, image_tokens=amounts, latency_budget=budgets, **GREEDY
    )
    first = 0
    for row, amount, budget, found in zip(words, amounts, budgets, batch, strict=True):
        count = row.count(tag)
        own = {"images": pixels[first : first + count]} if count else {}
        first += count
        alone = model.generate(torch.tensor([row]), image_tokens=amount, latency_budget=budget, **own, **GREEDY)
        assert found.tolist() == alone[0].tolist()


@pytest.mark.parametrize("selector", sorted({*SELECTORS} - {"prumerge", "prumerge+"}))
def test_generate_all_tokens_is_the_same_with_any_selector(plain, selector):
    ids, pixels = torch.tensor([[1, IMAGE_TOKEN_INDEX, 6]]), images_of(1)
    expected = plain.generate(ids, images=pixels, **GREEDY)
    found = plain.generate(ids, images=pixels, image_tokens="100%", token_selector=selector, **GREEDY)
    assert torch.equal(found, expected)


def test_generate_text_alone_ignores_the_amount(plain):
    ids = torch.tensor([[1, 5, 6]])
    assert torch.equal(plain.generate(ids, image_tokens=4, **GREEDY), plain.generate(ids, **GREEDY))


def test_generate_unknown_selector_or_amount_is_refused(plain):
    ids, pixels = torch.tensor([[1, IMAGE_TOKEN_INDEX, 6]]), images_of(1)
    with pytest.raises(OptionError, match="the token selector is 'best'"):
        plain.generate(ids, images=pixels, image_tokens=2, token_selector="best", **GREEDY)
    with pytest.raises(OptionError, match="--image-tokens is 0"):
        plain.generate(ids, images=pixels, image_tokens=0, **GREEDY)
