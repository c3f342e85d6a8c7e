"""Columns and positions of slots, on the device and in the host's checks."""

from __future__ import annotations

import pytest
import torch

from ada.engine.gated.slot_lengths import SlotLengths

CAPACITY, POSITIONS = 8, 10


@pytest.fixture
def lengths() -> SlotLengths:
    return SlotLengths(2, 3, POSITIONS, torch.device("cpu"))


def run_step(lengths: SlotLengths, used: list[int]) -> None:
    lengths.advance(torch.tensor(used, dtype=torch.int32))
    lengths.count()


def test_step_adds_to_the_rows_that_run(lengths) -> None:
    lengths.set(0, [5, 3], 6)
    lengths.set(1, [2, 2], 2)
    run_step(lengths, [1, 1, 0])
    lengths.move(1, 2)
    run_step(lengths, [1, 0, 1])
    assert lengths.columns[:, [0, 2]].tolist() == [[7, 4], [5, 4]]
    assert lengths.positions[[0, 2]].tolist() == [8, 4]


@pytest.mark.parametrize(
    ("columns", "position", "steps", "message"),
    [([5, 3], 5, 3, "slot 0 holds 8 columns"), ([2, 5], 5, 3, "8 columns"), ([1, 1], 8, 2, "all of its 10 positions")],
)
def test_row_that_is_full_is_refused_after_its_last_step(lengths, columns, position, steps, message) -> None:
    run_step(lengths, [0, 0, 0])
    lengths.set(0, columns, position)
    for _ in range(steps):
        lengths.check(1, CAPACITY)
        run_step(lengths, [1, 0, 0])
    with pytest.raises(ValueError, match=message):
        lengths.check(1, CAPACITY)


def test_row_may_go_on_where_slots_have_grown_or_it_has_left(lengths) -> None:
    lengths.set(0, [8, 8], 8)
    lengths.check(1, CAPACITY + 1)
    lengths.set(0, [3, 3], 3)
    lengths.check(1, CAPACITY)
