"""Leaving image tokens out of an embedded batch, against rows made one by one."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ada.image_tokens.kept import with_kept_tokens
from llava.constants import IGNORE_INDEX, IMAGE_TOKEN_INDEX
from llava.errors import OptionError
from llava.model.multimodal.embedded_batch import EmbeddedBatch
from llava.model.multimodal.image_spans import image_spans
from llava.model.multimodal.merge_inputs import splice

SIZE = 3


@st.composite
def rows_of_images(draw):
    """Rows of token ids with tags, the length of each image, and which of its tokens are kept."""
    rows = draw(
        st.lists(
            st.lists(st.sampled_from([5, 6, 7, IMAGE_TOKEN_INDEX]), min_size=1, max_size=6), min_size=1, max_size=4
        )
    )
    if all(IMAGE_TOKEN_INDEX not in row for row in rows):
        rows[0] = [*rows[0], IMAGE_TOKEN_INDEX]
    images, kept = [], []
    for row in rows:
        own = []
        for _ in range(row.count(IMAGE_TOKEN_INDEX)):
            length = draw(st.integers(1, 5))
            images.append(torch.randn(length, SIZE, dtype=torch.float64))
            own.append(torch.tensor(sorted(draw(st.sets(st.integers(0, length - 1), min_size=1)))))
        kept.append(own)
    return rows, images, kept


def spliced(rows, images, side):
    """The rows as they enter the decoder, with spans, by the model's own way of merging."""
    width = max(map(len, rows))
    ids, mask = torch.zeros(len(rows), width, dtype=torch.long), torch.zeros(len(rows), width, dtype=torch.long)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = torch.tensor(row)
        mask[index, : len(row)] = 1
    labels = ids.masked_fill(mask == 0, IGNORE_INDEX)
    made = splice(ids, mask, labels, images, embed, padding_side=side)
    spans = image_spans(ids, mask, [len(image) for image in images], made.attention_mask, made.embeds.shape[1])
    return EmbeddedBatch(made.embeds, made.attention_mask, made.position_ids, made.labels, image_spans=spans)


def embed(ids):
    return ids[:, None].double() * torch.arange(1, SIZE + 1, dtype=torch.float64)


def row_by_loops(row, images, kept):
    """Embeddings, positions and labels of one row, token by token."""
    embeds, positions, labels, position = [], [], [], 0
    images, kept = iter(images), iter(kept)
    for token in row:
        if token == IMAGE_TOKEN_INDEX:
            image, own = next(images), next(kept).tolist()
            embeds += [image[index] for index in own]
            positions += [position + index for index in own]
            labels += [IGNORE_INDEX] * len(own)
            position += len(image)
        else:
            embeds.append(embed(torch.tensor([token]))[0])
            positions.append(position)
            labels.append(token)
            position += 1
    return torch.stack(embeds), positions, labels


@settings(max_examples=150, deadline=None)
@given(rows_of_images(), st.sampled_from(["left", "right"]))
def test_kept_tokens_any_rows_equal_rows_made_one_by_one(case, side):
    rows, images, kept = case
    batch = with_kept_tokens(spliced(rows, images, side), kept, side)
    mask = (
        torch.ones(batch.embeds.shape[:2], dtype=torch.bool) if batch.attention_mask is None else batch.attention_mask
    )
    before = 0
    for index, (row, own) in enumerate(zip(rows, kept, strict=True)):
        mine = images[before : before + len(own)]
        before += len(own)
        embeds, positions, labels = row_by_loops(row, mine, own)
        real = mask[index].bool()
        torch.testing.assert_close(batch.embeds[index][real], embeds)
        assert batch.position_ids[index][real].tolist() == positions
        assert batch.labels[index][real].tolist() == labels
        assert (batch.labels[index][~real] == IGNORE_INDEX).all() and not batch.embeds[index][~real].any()
        columns = real.nonzero().flatten().tolist()
        assert columns == list(range(columns[0], columns[-1] + 1)), "padding on one side"
        for span, image, indices in zip(batch.image_spans[index], mine, own, strict=True):
            torch.testing.assert_close(batch.embeds[index, span.start : span.end], image[indices])
    assert bool(mask.bool().any(dim=0).all()), "no column of padding alone"


def test_kept_tokens_batch_without_spans_is_refused():
    with pytest.raises(OptionError, match="places in the prompt are not known"):
        with_kept_tokens(EmbeddedBatch(torch.zeros(1, 4, SIZE)), [[]])


def test_image_spans_lengths_that_do_not_fit_are_none():
    ids = torch.tensor([[1, IMAGE_TOKEN_INDEX, 2]])
    assert image_spans(ids, None, [4], None, 6) is not None
    assert image_spans(ids, None, [5], None, 6) is None
