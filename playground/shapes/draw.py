"""Draws a scene with Pillow, at a vision tower's input size, so that nothing is resized."""

from __future__ import annotations

import functools
import math

from PIL import Image, ImageDraw, ImageFont

from playground.shapes.scene import SIDE, Item, Scene

RGB = {
    "red": (214, 40, 40),
    "green": (40, 160, 60),
    "blue": (40, 80, 220),
    "yellow": (245, 205, 30),
    "purple": (140, 50, 170),
    "orange": (245, 130, 20),
    "black": (20, 20, 20),
    "brown": (125, 75, 35),
}
BACKGROUND = (238, 238, 234)
RADIUS = {"small": 7, "large": 13}  # pixels
_OVERSAMPLING = 4  # drawn larger and reduced, for smooth edges

Point = tuple[float, float]


def draw(scene: Scene, side: int = SIDE) -> Image.Image:
    """Return the scene as an RGB image of ``side`` by ``side`` pixels; a scene's own measures are for SIDE."""
    drawn = SIDE * max(_OVERSAMPLING, math.ceil(2 * side / SIDE))  # pixels
    scale = drawn // SIDE
    image = Image.new("RGB", (drawn, drawn), BACKGROUND)
    canvas = ImageDraw.Draw(image)
    for item in scene.items:
        if item.kind == "shape":
            _draw_shape(canvas, item, scale)
        else:
            font = _font((22 if item.kind == "word" else 26) * scale)
            canvas.text((item.x * scale, item.y * scale), item.name, RGB[item.colour], font, anchor="mm")
    return image.resize((side, side), Image.Resampling.LANCZOS)


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _draw_shape(canvas: ImageDraw.ImageDraw, item: Item, scale: int) -> None:
    x, y, r = item.x * scale, item.y * scale, RADIUS[item.size] * scale
    colour = RGB[item.colour]
    if item.name == "circle":
        canvas.ellipse((x - r, y - r, x + r, y + r), fill=colour)
    else:
        canvas.polygon([(x + r * px, y + r * py) for px, py in _OUTLINES[item.name]], fill=colour)


def _star() -> list[Point]:
    points = []
    for corner in range(10):
        angle, reach = math.pi * (corner / 5 - 0.5), 1.0 if corner % 2 == 0 else 0.42
        points.append((reach * math.cos(angle), reach * math.sin(angle)))
    return points


def _cross(arm: float = 0.36) -> list[Point]:
    quarter = [(arm, -1.0), (arm, -arm), (1.0, -arm)]
    return [turned for turn in range(4) for turned in (_turn(p, turn) for p in quarter)]


def _turn(point: Point, quarters: int) -> Point:
    x, y = point
    for _ in range(quarters):
        x, y = -y, x
    return x, y


_OUTLINES: dict[str, list[Point]] = {
    "square": [(-0.88, -0.88), (0.88, -0.88), (0.88, 0.88), (-0.88, 0.88)],
    "triangle": [(0.0, -1.0), (1.0, 0.85), (-1.0, 0.85)],
    "diamond": [(0.0, -1.0), (0.72, 0.0), (0.0, 1.0), (-0.72, 0.0)],
    "star": _star(),
    "cross": _cross(),
}
