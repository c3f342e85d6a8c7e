"""Features of an image's crops: how many there are under a limit, and which."""

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from transformers import LlavaOnevisionProcessor

from llava.errors import CheckpointError
from llava.model.multimodal.anyres_grid import grid_resolutions
from llava.model.multimodal.anyres_merge import merge_crops, merged_positions

WIDTH = 3
NEWLINE = torch.full((WIDTH,), -1.0)


def transformers_count(side, grid, size, limit):
    """Features of patches, and ends of lines, as transformers' processor counts them."""
    processor = object.__new__(LlavaOnevisionProcessor)  # to make one needs torchvision
    processor.vision_aspect_ratio = f"anyres_max_{limit}"
    (across, down), (width, height) = grid, size
    return processor._get_unpadded_features(height, width, side, side, down, across)


@settings(deadline=None)
@example(27, (1, 2), (105, 105), 1)  # 27 / 105 * 105 is 26.999...
@example(27, (2, 1), (105, 105), 9)
@example(27, (1, 3), (210, 105), 4)
@given(
    side=st.sampled_from([2, 4, 27]),
    grid=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    size=st.tuples(st.integers(50, 3000), st.integers(50, 3000)),
    limit=st.integers(1, 12),
)
def test_merged_positions_are_those_of_transformers_and_of_the_features(side, grid, size, limit):
    counted = merged_positions(side * side, "spatial_unpad", grid, size, limit)
    features = torch.randn(1 + grid[0] * grid[1], side * side, WIDTH)
    merged = merge_crops(features, "spatial_unpad", grid, size, NEWLINE, limit)
    assert len(merged) == counted
    patches, line_ends = transformers_count(side, grid, size, limit)
    if patches:  # else transformers' model fails; here one line is kept of what a reduction would leave nothing of
        assert counted == side * side + patches + line_ends


@pytest.mark.parametrize("size", [(3000, 1), (1, 3000), (6000, 11)], ids=str)
@pytest.mark.parametrize("limit", [1, 9])
def test_merge_crops_of_a_thin_image_under_a_limit(size, limit):
    grid = (6, 1) if size[0] > size[1] else (1, 6)
    features = torch.randn(7, 27 * 27, WIDTH)
    merged = merge_crops(features, "spatial_unpad", grid, size, NEWLINE, limit)
    assert merged.isfinite().all()
    assert len(merged) == merged_positions(27 * 27, "spatial_unpad", grid, size, limit)


@pytest.mark.parametrize(
    ("limit", "rows", "columns"),
    [(None, 12, 8), (6, 12, 8), (5, 12, 8), (4, 9, 6), (1, 4, 3)],  # 6 crops; the root of 6/5 is less than 1.1
)
def test_merge_crops_reduces_only_what_is_beyond_the_limit(limit, rows, columns):
    features = torch.ones(7, 16, WIDTH)
    merged = merge_crops(features, "spatial_unpad", (2, 3), (200, 300), NEWLINE, limit)
    lines = merged[16:].view(rows, columns + 1, WIDTH)
    assert (lines[:, -1] == NEWLINE).all()
    torch.testing.assert_close(lines[:, :-1], torch.ones(rows, columns, WIDTH), atol=1e-6, rtol=0)


@pytest.mark.parametrize("merge", ["flat", "spatial"])
def test_merge_crops_of_other_types_have_no_limit(merge):
    merged = merge_crops(torch.randn(7, 16, WIDTH), merge, (2, 3), (200, 300), None, 1)
    assert len(merged) == 7 * 16 == merged_positions(16, merge, (2, 3), (200, 300), 1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("(1x1),...,(2x3)", [(8, 8), (8, 16), (8, 24), (16, 8), (16, 16), (16, 24)]),
        ("(1x1), ..., (2x3)", [(8, 8), (8, 16), (8, 24), (16, 8), (16, 16), (16, 24)]),
        ("(2x2),...,(2x2)", [(16, 16)]),
        ("(1x2),(3x1)", [(8, 16), (24, 8)]),
        ("[[8, 16], [24, 8]]", [(8, 16), (24, 8)]),
    ],
)
def test_grid_resolutions_reads_counts_of_crops(text, expected):
    assert grid_resolutions(text, 8) == expected


@pytest.mark.parametrize("text", ["(1x1),...", "...,(6x6)", "(1x1)...(6x6)", "1x1,6x6", "(1xa)", "(1x1),(2,2)", "x"])
def test_grid_resolutions_of_another_form_raises(text):
    with pytest.raises(CheckpointError, match=r"image_grid_pinpoints is .*\(1x1\),...,\(6x6\)"):
        grid_resolutions(text, 8)
