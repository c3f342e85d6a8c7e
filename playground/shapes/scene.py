"""Scenes: a few coloured shapes, perhaps a digit and a word, on a jittered grid of 3 by 3 cells."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

SIDE = 96  # pixels; the vision tower's input size
CELL = 32  # pixels; an image has 3 by 3 cells

SHAPES = ("circle", "square", "triangle", "star", "cross", "diamond")
COLOURS = ("red", "green", "blue", "yellow", "purple", "orange", "black", "brown")
SIZES = ("small", "large")
DIGITS = tuple("0123456789")
WORDS = tuple(
    "ant bag bed bee bus cap car cat cow cup dog egg fan fig fox gem hat hen ice ink jam jar key leg log map net nut "
    "oak owl pan pen pig pot rug sun tea toy van web".split()
)

# Combinations that only test scenes show, and only test questions name; every colour and every shape is in training
# with other partners.
HELD_OUT = frozenset(
    {
        ("red", "star"),
        ("green", "cross"),
        ("blue", "triangle"),
        ("yellow", "diamond"),
        ("purple", "circle"),
        ("orange", "square"),
    }
)

Pair = tuple[str, str]  # colour, shape
PAIRS: tuple[Pair, ...] = tuple((colour, shape) for colour in COLOURS for shape in SHAPES)
SEEN_PAIRS = tuple(pair for pair in PAIRS if pair not in HELD_OUT)

Split = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class Item:
    """One thing in an image. ``kind`` is shape, digit or word; ``x``, ``y`` is its centre in pixels."""

    kind: str
    name: str
    colour: str
    size: str
    x: int
    y: int

    @property
    def label(self) -> str:
        """How people name a shape: colour and shape."""
        return f"{self.colour} {self.name}"


@dataclass(frozen=True)
class Scene:
    """What an image shows; ``shapes`` are what questions about objects and counts mean.

    ``pairs`` may be named in a question, whether they are in the image or not.
    """

    items: tuple[Item, ...]
    pairs: tuple[Pair, ...] = PAIRS

    @property
    def shapes(self) -> tuple[Item, ...]:
        """The coloured shapes, in reading order."""
        return tuple(sorted((i for i in self.items if i.kind == "shape"), key=lambda i: (i.y // CELL, i.x)))

    def only(self, kind: str) -> Item | None:
        """Return the digit or the word, if there is one."""
        return next((i for i in self.items if i.kind == kind), None)


def scene_rng(split: Split, seed: int, index: int) -> random.Random:
    """Return the generator of one scene; the split is part of the seed, so splits never share one."""
    return random.Random(f"{split}/{seed}/{index}")


def sample_scene(rng: random.Random, split: Split, max_shapes: int = 6, written: float = 1 / 3) -> Scene:
    """Draw one to ``max_shapes`` shapes; in a share of ``written`` of the images a word, and as often a digit."""
    cells = [(column, row) for row in range(3) for column in range(3)]
    rng.shuffle(cells)
    items: list[Item] = []
    if rng.random() < written:
        items.append(_word(rng, cells))
    if rng.random() < written:
        items.append(_in_cell(rng, cells.pop(), "digit", rng.choice(DIGITS), rng.choice(COLOURS), "large"))
    pairs = PAIRS if split == "test" else SEEN_PAIRS
    count = min(rng.randint(1, max_shapes), len(cells))
    # Few names a scene, so that counts by attribute reach 2 and more.
    shapes, colours = rng.sample(SHAPES, rng.randint(1, 4)), rng.sample(COLOURS, rng.randint(1, 4))
    while count > 0:
        shape, colour = rng.choice(shapes), rng.choice(colours)
        if (colour, shape) not in pairs:
            shape, colour = rng.choice(SHAPES), rng.choice(COLOURS)  # also ends the wait where all pairs are held out
            if (colour, shape) not in pairs:
                continue
        items.append(_in_cell(rng, cells.pop(), "shape", shape, colour, rng.choice(SIZES)))
        count -= 1
    return Scene(tuple(items), pairs)


def _in_cell(rng: random.Random, cell: tuple[int, int], kind: str, name: str, colour: str, size: str) -> Item:
    reach = 8 if size == "small" else 3  # pixels of jitter that keep the item inside its cell
    x, y = (CELL * index + CELL // 2 + rng.randint(-reach, reach) for index in cell)
    return Item(kind, name, colour, size, x, y)


def _word(rng: random.Random, cells: list[tuple[int, int]]) -> Item:
    """A word takes two neighbouring cells of a row."""
    column, row = rng.choice((0, 1)), rng.choice((0, 1, 2))
    cells.remove((column, row))
    cells.remove((column + 1, row))
    x = CELL * (column + 1) + rng.randint(-6, 6)
    y = CELL * row + CELL // 2 + rng.randint(-5, 5)
    return Item("word", rng.choice(WORDS), rng.choice(COLOURS), "large", x, y)
