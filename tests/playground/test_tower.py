"""The tower's targets say which patch holds an item's centre, at any size of image and patch."""

import numpy as np
import pytest
import torch

from playground.shapes.draw import draw
from playground.shapes.scene import COLOURS, SIDE, SIZES, Item, Scene, sample_scene, scene_rng
from playground.shapes.tower import IGNORED, NAMES, TowerSize, image_processor, patch_targets, tower_config

SIZES_OF_TOWERS = [TowerSize(), TowerSize(side=168, patch=14, width=64, layers=2)]


@pytest.mark.parametrize("size", SIZES_OF_TOWERS, ids=lambda size: str(size.side))
def test_targets_are_where_the_items_are_drawn(size):
    for index in range(200):
        scene = sample_scene(scene_rng("train", 3, index), "train")
        targets = patch_targets(scene, size)
        grid = targets["name"].view(size.grid, size.grid)
        assert int((grid > 0).sum()) == len(scene.items)
        for item in scene.items:
            row, column = (int(at * size.side / SIDE) // size.patch for at in (item.y, item.x))
            patch = row * size.grid + column
            assert NAMES[targets["name"][patch]] == item.name
            assert COLOURS[targets["colour"][patch]] == item.colour
            assert SIZES[targets["size"][patch]] == item.size
            assert (targets["row"][patch], targets["column"][patch]) == (row, column)
        assert ((targets["colour"] == IGNORED) == (targets["name"] == 0)).all()


@pytest.mark.parametrize("side", [96, 168, 336])
def test_larger_images_show_the_same_scene(side):
    scene = Scene((Item("shape", "square", "red", "large", 40, 24),))
    pixels = np.asarray(draw(scene, side)).astype(int)
    assert pixels.shape == (side, side, 3)
    rows, columns = np.nonzero(np.abs(pixels - pixels[0, 0]).max(axis=2) > 60)
    assert (rows.mean() + 0.5) * SIDE / side == pytest.approx(24, abs=0.7)
    assert (columns.mean() + 0.5) * SIDE / side == pytest.approx(40, abs=0.7)
    assert (columns.max() - columns.min() + 1) * SIDE / side == pytest.approx(2 * 0.88 * 13, abs=1.5)  # smooth edges


@pytest.mark.parametrize("size", SIZES_OF_TOWERS, ids=lambda size: str(size.side))
def test_processor_and_config_fit(size):
    config = tower_config(size)
    scene = sample_scene(scene_rng("train", 0, 0), "train")
    pixels = image_processor(size.side)(draw(scene, size.side), return_tensors="pt")["pixel_values"]
    assert pixels.shape == (1, 3, config.image_size, config.image_size)
    assert (config.image_size // config.patch_size) ** 2 == size.targets["row"] ** 2
    assert torch.isfinite(pixels).all()
