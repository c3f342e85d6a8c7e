"""Long answers: a scene in sentences, item by item in reading order."""

from __future__ import annotations

import random

from playground.shapes.scene import CELL, Item, Scene

REQUESTS = (
    "Describe the picture.",
    "What do you see in the picture?",
    "Give a detailed description of the picture.",
    "Describe every object and where it is.",
)
_ROWS, _COLUMNS = ("top", "middle", "bottom"), ("left", "centre", "right")


def position_text(item: Item) -> str:
    """Say where an item is: "top left" to "bottom right"."""
    return f"{_ROWS[item.y // CELL]} {_COLUMNS[min(2, item.x // CELL)]}"


def caption(scene: Scene) -> str:
    """Describe a scene, one sentence an item: what it is, and where."""
    return " ".join(_sentence(item) for item in sorted(scene.items, key=lambda i: (i.y // CELL, i.x)))


def request(rng: random.Random) -> str:
    """Return one of the ways to ask for a description."""
    return rng.choice(REQUESTS)


def _sentence(item: Item) -> str:
    if item.kind == "shape":
        return f"A {item.size} {item.label} at the {position_text(item)}."
    return f"The {item.kind} {item.name} in {item.colour} at the {position_text(item)}."
