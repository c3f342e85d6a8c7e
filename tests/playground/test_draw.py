"""Images show what their scenes say."""

from __future__ import annotations

import numpy as np
import pytest

from playground.shapes.draw import BACKGROUND, RADIUS, RGB, draw
from playground.shapes.scene import CELL, COLOURS, DIGITS, SHAPES, SIZES, WORDS, Item, Scene, sample_scene, scene_rng


def painted(scene: Scene) -> set[tuple[int, int]]:
    """Pixels that differ clearly from the background."""
    pixels = np.asarray(draw(scene)).astype(int)
    rows, columns = np.nonzero(np.abs(pixels - BACKGROUND).max(axis=2) > 25)
    return set(zip(columns.tolist(), rows.tolist(), strict=True))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("shape", SHAPES)
def test_shape_is_drawn_at_its_position_in_its_colour(shape, size):
    for colour in COLOURS:
        image = draw(Scene((Item("shape", shape, colour, size, 40, 52),)))
        assert image.getpixel((40, 52)) == pytest.approx(RGB[colour], abs=3)
    spots = painted(Scene((Item("shape", shape, "blue", size, 40, 52),)))
    reach = RADIUS[size]
    assert all(abs(x - 40) <= reach + 1 and abs(y - 52) <= reach + 1 for x, y in spots)
    assert max(y for _, y in spots) - min(y for _, y in spots) >= 1.6 * reach


def test_shapes_and_sizes_look_different():
    looks = [painted(Scene((Item("shape", s, "red", z, 48, 48),))) for s in SHAPES for z in SIZES]
    for index, one in enumerate(looks):
        for other in looks[:index]:
            assert len(one ^ other) >= 20, "pixels"


@pytest.mark.parametrize(("kind", "names"), [("digit", DIGITS), ("word", WORDS)])
def test_written_things_look_different(kind, names):
    looks = {name: frozenset(painted(Scene((Item(kind, name, "black", "large", 48, 48),)))) for name in names}
    assert len(set(looks.values())) == len(names)
    assert all(looks.values())


def test_items_stay_in_their_cells():
    """No item touches another: every item's pixels are those it has alone."""
    for index in range(40):
        scene = sample_scene(scene_rng("train", 2, index), "train")
        alone = [painted(Scene((item,))) for item in scene.items]
        assert painted(scene) == set().union(*alone)
        assert sum(map(len, alone)) == len(set().union(*alone)), scene


def test_every_cell_can_hold_an_item():
    cells = set()
    for index in range(200):
        scene = sample_scene(scene_rng("train", 1, index), "train")
        assert 1 <= len(scene.shapes) <= 6
        written = [item.kind for item in scene.items if item.kind != "shape"]
        assert len(written) == len(set(written)), "at most a word and a digit"
        cells |= {(i.x // CELL, i.y // CELL) for i in scene.shapes}
    assert len(cells) == 9
