"""Token selectors against slow, obvious versions."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ada.image_tokens.selectors import SELECTORS, Candidates, select_diverse, select_grid, selector_named, spread
from llava.errors import OptionError

AS_ENCODED = ("prumerge", "prumerge+", "shrink")
CHOOSING = sorted({*SELECTORS} - {*AS_ENCODED})


def candidates_of(rows, columns, seed=0, size=8):
    generator = torch.Generator().manual_seed(seed)
    cells = torch.tensor(list(itertools.product(range(rows), range(columns))), dtype=torch.float32)
    features = torch.randn(rows * columns, size, generator=generator)
    return Candidates(features, cells, torch.rand(rows * columns, generator=generator))


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(CHOOSING), st.integers(1, 5), st.integers(1, 5), st.data())
def test_selectors_any_grid_and_number_keep_so_many_in_order(name, rows, columns, data):
    candidates = candidates_of(rows, columns)
    keep = data.draw(st.integers(1, rows * columns))
    kept = selector_named(name)(candidates, keep).tolist()
    assert len(kept) == keep and kept == sorted(set(kept)) and kept[0] >= 0 and kept[-1] < rows * columns


def slow_spread(distances, keep):
    """The same choice, with loops over lists."""
    count = len(distances)
    nearest = [min((distances[i][j] for j in range(count) if j != i), default=0) for i in range(count)]
    chosen = [max(range(count), key=lambda i: nearest[i])]
    while len(chosen) < keep:
        rest = [i for i in range(count) if i not in chosen]
        chosen.append(max(rest, key=lambda i: min(distances[i][j] for j in chosen)))
    return sorted(chosen)


@pytest.mark.parametrize("seed", range(5))
def test_spread_equals_the_greedy_choice_by_loops(seed):
    points = torch.randn(12, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    distances = torch.cdist(points, points)
    for keep in (1, 2, 5, 12):
        assert spread(distances, keep).tolist() == slow_spread(distances.tolist(), keep)


def test_grid_keeps_the_corners_first_and_leaves_no_large_hole():
    candidates = candidates_of(6, 6)
    kept = candidates.cells[select_grid(candidates, 9)]
    farthest = torch.cdist(candidates.cells, kept).min(dim=1).values.max()
    assert farthest <= 2.3, "every cell has a kept one near: 9 of 36"


def test_diverse_keeps_one_of_each_group_of_alike_tokens():
    directions = torch.eye(5).repeat(4, 1) + 0.01 * torch.randn(20, 5, generator=torch.Generator().manual_seed(1))
    kept = select_diverse(Candidates(directions, torch.zeros(20, 2)), 5)
    assert sorted((kept % 5).tolist()) == [0, 1, 2, 3, 4]


def test_salient_keeps_the_tokens_that_stand_out():
    features = torch.ones(10, 4) + 0.01 * torch.randn(10, 4, generator=torch.Generator().manual_seed(2))
    features[[3, 7]] = torch.tensor([[5.0, 0, 0, 0], [0, 0, -5.0, 0]])
    assert SELECTORS["salient"](Candidates(features, torch.zeros(10, 2)), 2).tolist() == [3, 7]


def test_cls_keeps_the_tokens_of_the_greatest_class_attention():
    attention = torch.tensor([0.1, 0.4, 0.2, 0.05, 0.25])
    kept = SELECTORS["cls"](Candidates(torch.zeros(5, 2), torch.zeros(5, 2), attention), 3)
    assert kept.tolist() == [1, 2, 4]


def test_cls_without_class_attention_is_refused():
    with pytest.raises(OptionError, match="'cls', and what the vision tower's class token attends to was not read"):
        SELECTORS["cls"](Candidates(torch.zeros(5, 2), torch.zeros(5, 2)), 3)


@pytest.mark.parametrize("name", AS_ENCODED)
def test_selector_of_encoding_after_it_keeps_all_or_is_refused(name):
    assert SELECTORS[name](candidates_of(2, 2), 4).tolist() == [0, 1, 2, 3]
    with pytest.raises(OptionError, match="act as images are encoded"):
        SELECTORS[name](candidates_of(2, 2), 3)


def test_spread_from_a_start_goes_on_from_there():
    points = torch.tensor([[0.0], [1.0], [5.0], [9.0]])
    assert spread(torch.cdist(points, points), 2, torch.tensor([0])).tolist() == [0, 3]
    assert spread(torch.cdist(points, points), 3, torch.tensor([0, 1])).tolist() == [0, 1, 3]


def test_selector_that_cannot_be_used_is_refused():
    with pytest.raises(
        OptionError, match=r"'best'; expected one of random, grid, cls, salient, divprune, prumerge, prumerge\+, shrink"
    ):
        selector_named("best")
