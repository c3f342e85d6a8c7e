"""Where tokens are on an image: against coordinates that go through the model's own merging of crops."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ada.image_tokens.layout import Merging, cells_in, cells_of, has_nearest, nearest_tokens, tokens_in
from llava.model.multimodal.anyres_merge import merge_crops

SIDE = 4
SIZES = [(100, 100), (190, 60), (40, 170), (101, 37)]
CASES = [
    (merge_type, grid, size, limit)
    for merge_type in ("flat", "spatial", "spatial_unpad")
    for grid in ((2, 1), (1, 2), (2, 2), (3, 1))
    for size in SIZES
    for limit in ((None, 2) if merge_type == "spatial_unpad" else (None,))
]


def coordinates_of_crops(grid, size):
    """Row and column of each patch of each crop (n, P, 2), in patches of the padded image, by loops over patches."""
    across, down = grid
    rows, columns = down * SIDE, across * SIDE
    scale = min(columns / size[0], rows / size[1])
    high, wide = size[1] * scale, size[0] * scale
    overview = [
        [(rows - high) / 2 + (i + 0.5) / SIDE * high, (columns - wide) / 2 + (j + 0.5) / SIDE * wide]
        for i in range(SIDE)
        for j in range(SIDE)
    ]
    crops = [
        [[r * SIDE + i + 0.5, c * SIDE + j + 0.5] for i in range(SIDE) for j in range(SIDE)]
        for r in range(down)
        for c in range(across)
    ]
    return torch.tensor([overview, *crops])


@pytest.mark.parametrize(("merge_type", "grid", "size", "limit"), CASES)
def test_cells_of_several_crops_are_the_patches_coordinates(merge_type, grid, size, limit):
    crops = coordinates_of_crops(grid, size)
    expected = merge_crops(crops, merge_type, grid, size, torch.full((2,), torch.nan), limit)
    layout = Merging(len(crops), merge_type, grid, size, limit).layout(SIDE)
    found = cells_in(layout)
    assert tokens_in(layout) == len(found) == len(expected)
    newlines = expected.isnan().any(dim=1)
    torch.testing.assert_close(found[~newlines], expected[~newlines], atol=1e-4, rtol=0)
    for index in newlines.nonzero().flatten().tolist():
        if index > SIDE * SIDE and not newlines[index - 1]:  # a very thin image has lines without a patch
            last = found[index - 1]
            assert found[index, 0] == last[0] and found[index, 1] > last[1], "on its line, after the last patch"


@pytest.mark.parametrize(("merge_type", "grid", "size", "limit"), CASES)
@pytest.mark.parametrize("smaller", [1, 2, 3])
def test_nearest_tokens_of_smaller_crops_are_the_nearest_cells_of_their_block(merge_type, grid, size, limit, smaller):
    merging = Merging(1 + grid[0] * grid[1], merge_type, grid, size, limit)
    small, large = merging.layout(smaller), merging.layout(SIDE)
    if not has_nearest(small, large):
        assert max(size) > 2.5 * min(size), "a thin image, whose few lines are rounded"
        return
    found = nearest_tokens(small, large).tolist()
    assert len(found) == tokens_in(small) and found == sorted(set(found)) and found[-1] < tokens_in(large)
    before, first = 0, 0
    for block, larger in zip(small, large, strict=True):
        cells, own = block.cells(), found[first : first + len(block)]
        scale = SIDE / smaller  # each layout's unit is its own patch
        distances = torch.cdist(scale * cells.double(), larger.cells().double())
        for token, near in enumerate(own):
            if not block.newlines or (token + 1) % (block.columns + 1):  # padding is rounded to lines of either size
                slack = 1 + scale / 2
                assert distances[token, near - before] <= distances[token].min() + slack
            else:
                assert (near - before + 1) % (larger.columns + 1) == 0, "a newline has a newline's position"
        before, first = before + len(larger), first + len(block)


@given(st.integers(1, 30), st.integers(1, 30))
def test_nearest_tokens_of_a_square_in_a_square_are_by_lines(one, other):
    side, smaller = max(one, other), min(one, other)
    found = nearest_tokens(Merging(None).layout(smaller), Merging(None).layout(side)).view(smaller, smaller)
    centres = [(i + 0.5) * side / smaller - 0.5 for i in range(smaller)]
    for i in range(smaller):
        for j in range(smaller):
            row, column = divmod(int(found[i, j]), side)
            assert abs(row - centres[i]) <= 0.5 + 1e-9 and abs(column - centres[j]) <= 0.5 + 1e-9


def test_layout_of_one_crop_has_a_newline_or_a_class_token_where_the_model_has_one():
    assert tokens_in(Merging(1, "spatial_unpad").layout(SIDE)) == SIDE * SIDE + 1
    assert tokens_in(Merging(None, "spatial_unpad").layout(SIDE)) == SIDE * SIDE, "pixels of one tensor are not merged"
    layout = Merging(None, class_token=True).layout(SIDE)
    assert cells_in(layout)[0].tolist() == [SIDE / 2, SIDE / 2] and tokens_in(layout) == SIDE * SIDE + 1


def test_crops_of_unknown_places_are_next_to_one_another():
    layout = Merging(3, "flat").layout(2)
    assert cells_in(layout)[:, 0].tolist() == [0.5, 0.5, 1.5, 1.5] * 3
    assert cells_in(layout)[:, 1].tolist() == [0.5, 1.5, 0.5, 1.5, 2.5, 3.5, 2.5, 3.5, 4.5, 5.5, 4.5, 5.5]


def test_cells_of_a_number_are_a_square_or_one_line():
    assert cells_of(4).tolist() == [[0.5, 0.5], [0.5, 1.5], [1.5, 0.5], [1.5, 1.5]]
    assert cells_of(3).tolist() == [[0.5, 0.5], [0.5, 1.5], [0.5, 2.5]]
