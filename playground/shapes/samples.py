"""Draws the sample sheet: one question of each kind under its image.

python -m playground.shapes.samples --out playground/shapes/samples.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from llava.files.atomic_write import atomic_path
from playground.shapes.draw import draw
from playground.shapes.questions import KINDS, Question
from playground.shapes.scene import SIDE, Scene, sample_scene, scene_rng

COLUMNS, ZOOM, GAP, LINE = 5, 2, 20, 19  # pixels, but for the first two
LINES = 5  # of text under an image
WIDTH = SIDE * ZOOM
INK, ANSWER, FAINT, PAPER = "#222222", "#2b5fb3", "#777777", "white"


def samples(seed: int) -> list[tuple[Scene, Question]]:
    """Return the first test scene with at least four shapes that allows a question, for every kind."""
    found, index = [], 0
    for maker in KINDS.values():
        question = None
        while question is None:
            rng = scene_rng("test", seed, index)
            scene = sample_scene(rng, "test")
            index += 1
            question = maker(rng, scene) if len(scene.shapes) >= 4 else None
        found.append((scene, question))
    return found


def sheet(seed: int) -> Image.Image:
    """Draw the images at twice their size; below each its kind, question and answer."""
    cells = samples(seed)
    height = WIDTH + LINES * LINE + GAP
    rows = -(-len(cells) // COLUMNS)
    image = Image.new("RGB", (GAP + COLUMNS * (WIDTH + GAP), GAP + rows * height), PAPER)
    for index, (scene, question) in enumerate(cells):
        x, y = GAP + index % COLUMNS * (WIDTH + GAP), GAP + index // COLUMNS * height
        image.paste(draw(scene).resize((WIDTH, WIDTH), Image.Resampling.LANCZOS), (x, y))
        _write(ImageDraw.Draw(image), x, y + WIDTH + 4, question)
    return image


def _write(canvas: ImageDraw.ImageDraw, x: int, y: int, question: Question) -> None:
    font = ImageFont.load_default(14)
    asked, *options = question.text.split("\n")
    lines = [(question.kind, FAINT), *((line, INK) for line in _wrapped(canvas, asked, font))]
    if options:
        lines += [(line, INK) for line in _wrapped(canvas, "  ".join(options), font)]
    for number, (line, colour) in enumerate([*lines, (question.answer, ANSWER)]):
        canvas.text((x, y + number * LINE), line, colour, font)


def _wrapped(canvas: ImageDraw.ImageDraw, text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> list[str]:
    lines = [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}".strip()
        if canvas.textlength(longer, font) <= WIDTH:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def main() -> None:
    """Run the program with the command line's flags."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="PNG file to write")
    parser.add_argument("--seed", type=int, default=298, help="seed of the scenes; another one shows others")
    args = parser.parse_args()
    with atomic_path(args.out) as temporary:
        sheet(args.seed).quantize(128).save(temporary, format="png", optimize=True)


if __name__ == "__main__":
    main()
