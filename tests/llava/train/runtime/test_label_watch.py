"""Steps without a trained token: what is divided by, what is reported, when a run ends."""

import logging

import pytest
import torch

from llava.constants import IGNORE_INDEX
from llava.errors import DataError
from llava.train.runtime.label_watch import MAX_EMPTY_STEPS, LabelWatch


def batch(*trained):
    """Rows of four labels, of which so many are trained on."""
    rows = [[IGNORE_INDEX] * (4 - count) + [5] * count for count in trained]
    return {"labels": torch.tensor(rows)}


EMPTY = [batch(0, 0), batch(0)]


@pytest.mark.parametrize("items", [torch.tensor(3), 3, None])
def test_step_with_trained_tokens_keeps_the_trainers_number(items, caplog):
    watch = LabelWatch(48)
    assert watch.count([batch(0), batch(0, 3)], items, 0) is items
    watch.require_any()
    assert not caplog.records


def test_step_whose_tokens_another_process_has_keeps_the_trainers_number(caplog):
    watch = LabelWatch(48)
    assert watch.count(EMPTY, torch.tensor(7), 0) == 7 and not caplog.records
    watch.require_any()


@pytest.mark.parametrize("items", [torch.tensor(0), 0])
def test_step_without_a_trained_token_is_reported_and_divides_by_1(items, caplog):
    watch = LabelWatch(48)
    watch.count([batch(2)], torch.tensor(2), 0)
    with caplog.at_level(logging.WARNING, logger="llava.train"):
        assert watch.count(EMPTY, items, 4) == 1
    assert "step 5 has no trained token within --model_max_length 48" in caplog.text
    watch.require_any()


def test_run_without_any_trained_token_ends_early():
    watch = LabelWatch(48)
    for step in range(MAX_EMPTY_STEPS - 1):
        watch.count(EMPTY, torch.tensor(0), step)
    with pytest.raises(DataError, match=rf"nothing was trained: {MAX_EMPTY_STEPS} step"):
        watch.count(EMPTY, torch.tensor(0), MAX_EMPTY_STEPS)


def test_run_that_begins_with_trained_tokens_goes_on_through_many_empty_steps():
    watch = LabelWatch(48)
    watch.count([batch(1)], torch.tensor(1), 0)
    for step in range(3 * MAX_EMPTY_STEPS):
        assert watch.count(EMPTY, torch.tensor(0), step) == 1


def test_run_without_a_step_is_no_error():
    LabelWatch(None).require_any()
