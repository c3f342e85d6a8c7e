"""Logits of answers alone: the loss and its gradients are those of all positions, whatever is padded or left out."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llava.constants import IGNORE_INDEX
from llava.model.answer_logits import answer_logits

IMAGE = -200


@st.composite
def batches(draw):
    """Token ids and labels (B, t) with an image in some rows, and at least one label in all."""
    rows, length = draw(st.integers(1, 3)), draw(st.integers(4, 9))
    ids = torch.tensor(
        draw(st.lists(st.lists(st.integers(3, 20), min_size=length, max_size=length), min_size=rows, max_size=rows))
    )
    learns = torch.tensor(
        draw(st.lists(st.lists(st.booleans(), min_size=length, max_size=length), min_size=rows, max_size=rows))
    )
    learns[0, -1] = True
    ids[:, 1] = IMAGE
    return ids, ids.masked_fill(~learns | (ids == IMAGE), IGNORE_INDEX)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batch=batches())
def test_loss_and_gradients_are_those_of_all_positions(model, pixels, batch):
    ids, labels = batch
    images = pixels[: len(ids)]
    found = []
    for answers_only in (False, True):
        model.zero_grad()
        out = model(ids, labels=labels, images=images, answers_only=answers_only)
        out.loss.backward()
        found.append((out, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}))
    (full, full_gradients), (short, gradients) = found
    torch.testing.assert_close(short.loss, full.loss)
    spread = model.embed(ids, labels=labels, images=images).labels
    torch.testing.assert_close(answer_logits(short.logits, spread), answer_logits(full.logits, spread))
    assert short.logits.shape[1] == int((spread[:, 1:] != IGNORE_INDEX).sum())
    assert gradients.keys() == full_gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, full_gradients[name], atol=1e-6, rtol=1e-4)


def test_tokens_of_the_whole_step_divide_the_loss(model, pixels):
    ids = torch.tensor([[4, IMAGE, 5, 6, 7]])
    labels = torch.tensor([[IGNORE_INDEX, IGNORE_INDEX, IGNORE_INDEX, 6, 7]])
    losses = [
        model(ids, labels=labels, images=pixels[:1], answers_only=only, num_items_in_batch=torch.tensor(8)).loss
        for only in (False, True)
    ]
    torch.testing.assert_close(*losses)
    assert losses[1].item() == pytest.approx(model(ids, labels=labels, images=pixels[:1]).loss.item() * 2 / 8, rel=1e-5)
