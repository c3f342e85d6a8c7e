"""Surveys of a scene: how many things there are of each colour, shape or size, in each column or row, and which.

One answer finds many things, each by the word just written, or finds that there is none: it teaches to find in fewer
tokens than questions about one thing do. By colour, shape and size go shapes alone, as where they are counted.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from playground.shapes.captions import position_text
from playground.shapes.scene import CELL, COLOURS, SHAPES, SIZES, Item, Scene
from playground.smol.wordings import lines

REQUESTS = {
    "colour": lines("""
        What is there of each colour?
        List the {things} by colour.
        Go through the colours.
        Sort what you see by colour.
        How many {things} are there of each colour?
    """),
    "shape": lines("""
        What is there of each shape?
        List the {things} by shape.
        Go through the shapes.
        Sort what you see by shape.
        How many are there of each shape?
    """),
    "size": lines("""
        List the {things} by size.
        Sort what you see by size.
        What is small, and what is large?
        How many {things} are there of each size?
    """),
    "column": lines("""
        Go through the {pic} from left to right.
        List what there is from left to right.
        What do you see from left to right?
    """),
    "row": lines("""
        Go through the {pic} from top to bottom.
        List what there is from top to bottom.
        What do you see from top to bottom?
    """),
}

Group = Callable[[Item], str]
_GROUPS: dict[str, tuple[tuple[str, ...], Group, Group]] = {  # its groups, whose an item is, what it is called there
    "colour": (COLOURS, lambda i: i.colour if i.kind == "shape" else "", lambda i: f"{i.size} {i.name}"),
    "shape": (SHAPES, lambda i: i.name, lambda i: f"{i.size} {i.colour}"),
    "size": (SIZES, lambda i: i.size if i.kind == "shape" else "", lambda i: i.label),
    "column": (("left", "centre", "right"), lambda i: position_text(i).split()[1], lambda i: _label(i)),
    "row": (("top", "middle", "bottom"), lambda i: position_text(i).split()[0], lambda i: _label(i)),
}


def survey_request(rng: random.Random) -> tuple[str, str]:
    """Draw what to go by, a key of REQUESTS, and a form to ask for it."""
    by = rng.choice(tuple(REQUESTS))
    return by, rng.choice(REQUESTS[by])


def survey(scene: Scene, by: str) -> str:
    """Go through a scene: "Red: 2, small star and large cross. Green: 0." In a group things are in reading order."""
    groups, group_of, called = _GROUPS[by]
    items = sorted(scene.items, key=lambda i: (i.y // CELL, i.x))
    parts = []
    for group in groups:
        found = [called(item) for item in items if group_of(item) == group]
        parts.append(f"{group.capitalize()}: {', '.join([str(len(found)), ' and '.join(found)] if found else ['0'])}.")
    return " ".join(parts)


def _label(item: Item) -> str:
    return item.label if item.kind == "shape" else f"{item.kind} {item.name}"
