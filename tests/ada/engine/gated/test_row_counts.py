"""Columns and positions of slots as the kernels read them."""

from __future__ import annotations

import torch

from ada.engine.gated.row_counts import RowCounts


def test_step_adds_to_the_rows_that_run() -> None:
    counts = RowCounts(2, 3, torch.device("cpu"))
    address = counts.columns.data_ptr()
    counts.set(0, [5, 3], 6)
    counts.set(1, [2, 2], 2)
    counts.advance(torch.tensor([1, 1, 0]))
    counts.set(1, [7, 8], 9)
    counts.advance(torch.tensor([0, 1, 0]))
    assert counts.columns.tolist() == [[6, 8, 0], [4, 9, 0]]
    assert counts.positions.tolist() == [7, 10, 0]
    assert counts.columns.data_ptr() == address
