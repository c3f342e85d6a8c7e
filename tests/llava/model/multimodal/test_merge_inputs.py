"""The splice, against one that walks over every token."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llava.constants import IGNORE_INDEX, IMAGE_TOKEN_INDEX
from llava.errors import ImageError
from llava.model.multimodal.merge_inputs import features_by_row, pad_left, splice

HIDDEN = 3


def embed(ids):
    assert (ids >= 0).all()
    return ids[:, None].float() * torch.tensor([1.0, 10.0, 100.0])


def slow_row(ids, labels, images, max_length):
    """(embeddings, labels), a list each, token by token."""
    images, out, out_labels = list(images), [], []
    for token, label in zip(ids, labels, strict=True):
        if token == IMAGE_TOKEN_INDEX:
            patches = images.pop(0)
            out += patches.tolist()
            out_labels += [IGNORE_INDEX] * len(patches)
        else:
            out.append(embed(torch.tensor([token]))[0].tolist())
            out_labels.append(label)
    return out[:max_length], out_labels[:max_length]


rows_of_ids = st.lists(
    st.lists(st.one_of(st.integers(0, 9), st.just(IMAGE_TOKEN_INDEX)), min_size=1, max_size=7), min_size=1, max_size=4
)


@settings(deadline=None)
@given(
    rows=rows_of_ids,
    dummies=st.booleans(),
    in_side=st.sampled_from(["left", "right"]),
    side=st.sampled_from(["left", "right"]),
    max_length=st.one_of(st.none(), st.integers(1, 12)),
    patches=st.lists(st.integers(1, 4), min_size=30, max_size=30),
)
def test_splice_equals_a_token_by_token_splice(rows, dummies, in_side, side, max_length, patches):
    width = max(map(len, rows))
    tags = [row.count(IMAGE_TOKEN_INDEX) for row in rows]
    shares = [max(1, count) if dummies else count for count in tags]
    features = [torch.randn(n, HIDDEN) for n in patches[: sum(shares)]]
    labels = [[token % 5 for token in row] for row in rows]

    def padded(row, filler):
        rest = [filler] * (width - len(row))
        return rest + row if in_side == "left" else row + rest

    ids = torch.tensor([padded(row, 0) for row in rows])
    mask = torch.tensor([padded([1] * len(row), 0) for row in rows])
    in_labels = torch.tensor([padded(row, 77) for row in labels])
    found = splice(ids, mask, in_labels, features, embed, max_length, side)

    start = 0
    for number, (row, row_labels, share) in enumerate(zip(rows, labels, shares, strict=True)):
        expected, expected_labels = slow_row(row, row_labels, features[start : start + share], max_length)
        start += share
        real = found.attention_mask[number]
        assert real.sum() == len(expected)
        edge = real[-len(expected) :] if side == "left" else real[: len(expected)]
        assert edge.all()
        torch.testing.assert_close(found.embeds[number][real], torch.tensor(expected).view(-1, HIDDEN))
        assert (found.embeds[number][~real] == 0).all()
        assert found.labels[number][real].tolist() == expected_labels
        assert (found.labels[number][~real] == IGNORE_INDEX).all()
        assert found.position_ids[number][real].tolist() == list(range(len(expected)))
    assert splice(ids, mask, None, features, embed, max_length, side).labels is None


@pytest.mark.parametrize("given_images", [0, 1, 3])
def test_features_by_row_of_unequal_numbers_raises(given_images):
    with pytest.raises(ImageError, match=rf"2 image tag\(s\) in the prompt, but {given_images} image"):
        features_by_row([2], [torch.zeros(1, HIDDEN)] * given_images)


def test_splice_ignores_a_text_rows_dummy_image():
    one, two = torch.zeros(1, HIDDEN), torch.ones(2, HIDDEN)
    assert features_by_row([0, 1], [one, two]) == [[one], [two]]
    assert features_by_row([0, 1], [two]) == [[], [two]]


def test_splice_passes_gradients_to_a_dummy_image():
    """Every process of a sharded training must use the projector, also where its batch is text only."""
    feature = torch.ones(2, HIDDEN, requires_grad=True)
    splice(torch.tensor([[3, 4]]), None, None, [feature], embed).embeds.sum().backward()
    assert feature.grad is not None
    assert (feature.grad == 0).all()


def test_pad_left_moves_padding_and_keeps_rows():
    embeds = torch.arange(8.0).view(2, 4, 1)
    found, mask = pad_left(embeds, torch.tensor([[1, 1, 0, 0], [0, 1, 1, 1]]))
    assert found[0, 2:, 0].tolist() == [0, 1]
    assert found[1, 1:, 0].tolist() == [5, 6, 7]
    assert mask.tolist() == [[0, 0, 1, 1], [0, 1, 1, 1]]
    assert pad_left(embeds, torch.ones(2, 4))[1] is None
    assert pad_left(embeds, None)[0] is embeds
