"""Drawings of what was read of an image, rendered to pixels by hand and read back."""

import base64
import io
import re
import xml.etree.ElementTree as ET

import pytest
from PIL import Image

from ada.serve.demo.kept_drawing import EARLY, EARLY_ONLY, LEFT_OUT, SIDE, drawings

COUNTS = {
    "grid": [[2, 3]],
    "kept_cells": [[[0, 0], [0, 2], [1, 1]]],
    "late_cells": [[[0, 2]]],
    "fit": "pad",
}


def png(size=(40, 20), mode="RGB") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size).save(buffer, "PNG")
    return buffer.getvalue()


def veils(svg: ET.Element) -> dict[float, set[tuple[int, int]]]:
    """Opacity of each veil, and the (line, column) that it covers."""
    return {
        float(path.get("fill-opacity")): {
            (int(y), int(x)) for x, y in re.findall(r"M(\d+) (\d+)h1v1h-1z", path.get("d"))
        }
        for path in svg.iter("path")
    }


def test_drawing_dims_patches_that_did_not_enter_and_half_dims_those_that_left_early() -> None:
    svg = ET.fromstring(drawings([png()], COUNTS)).find("div/svg")
    assert veils(svg) == {LEFT_OUT: {(0, 1), (1, 0), (1, 2)}, EARLY_ONLY: {(0, 0), (1, 1)}}
    assert svg.get("viewBox") == "0 0 3 2" and "1 of 6 patches" in svg.get("aria-label")


@pytest.mark.parametrize(("fit", "aspect"), [("pad", "xMidYMid meet"), ("crop", "xMidYMid slice"), ("stretch", "none")])
@pytest.mark.parametrize("size", [(40, 20), (2000, 1000)])
def test_drawing_fits_a_small_copy_of_the_image_as_the_vision_tower_sees_it(fit, aspect, size) -> None:
    image = ET.fromstring(drawings([png(size, "RGBA")], {**COUNTS, "fit": fit})).find("div/svg/image")
    assert image.get("preserveAspectRatio") == aspect
    data = base64.b64decode(image.get("href").removeprefix("data:image/jpeg;base64,"))
    drawn = Image.open(io.BytesIO(data))
    assert max(drawn.size) == min(SIDE, max(size)) and drawn.width == 2 * drawn.height


@pytest.mark.parametrize(
    ("images", "counts"),
    [
        (1, {"all": 6, "kept": 6, "late": 6}),
        (2, COUNTS),  # a reply about another conversation
        (1, {**COUNTS, "grid": [None]}),
    ],
)
def test_drawings_are_empty_where_nothing_can_be_drawn(images, counts) -> None:
    assert drawings([png()] * images, counts) == ""


def test_drawings_of_several_images_leave_out_those_without_a_grid() -> None:
    counts = {**COUNTS, "grid": [None, [2, 3]], "kept_cells": [[], COUNTS["kept_cells"][0]]}
    counts["late_cells"] = [[], COUNTS["late_cells"][0]]
    drawn = ET.fromstring(drawings([png(), png()], counts)).findall("div/svg")
    assert len(drawn) == 1 and drawn[0].get("aria-label").startswith("image 2:")


@pytest.mark.parametrize("late", [True, False])
def test_caption_explains_grey_patches_where_there_are_any(late) -> None:
    counts = COUNTS if late else {**COUNTS, "late_cells": COUNTS["kept_cells"]}
    assert (EARLY in drawings([png()], counts)) == late
