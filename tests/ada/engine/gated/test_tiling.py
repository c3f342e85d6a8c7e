"""Block sizes of real decoders' shapes."""

from __future__ import annotations

import pytest

from ada.engine.gated.tiling import Tiling, padded


@pytest.mark.parametrize(("group", "depth"), [(128, 128), (344 + 15, 128), (256, 256), (896, 128), (12, 128)])
def test_depth_pads_groups_less(group, depth) -> None:
    assert Tiling().columns_block(1, group).depth == depth


def test_narrow_decoder_gets_no_deeper_blocks_than_its_width() -> None:
    assert Tiling().rows_block(1, 192, exact=False).depth == 256
    assert Tiling().rows_block(1, 32, exact=False).depth == 32


@pytest.mark.parametrize(("rows", "kv_heads", "splits"), [(1, 32, 8), (1, 4, 8), (2, 32, 4), (4, 32, 2), (16, 32, 1)])
def test_columns_are_split_until_the_gpu_is_full(rows, kv_heads, splits) -> None:
    assert Tiling().splits(rows, kv_heads) == splits


def test_parts_cover_the_width() -> None:
    assert Tiling().parts(1, 4096) == 256
    assert Tiling().parts(8, 100) == 7


@pytest.mark.parametrize(("number", "expected"), [(1, 16), (16, 16), (17, 32), (344, 512)])
def test_padded_is_a_power_of_two(number, expected) -> None:
    assert padded(number) == expected
