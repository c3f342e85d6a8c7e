"""Lists what of a scene can be counted, by one attribute or by two, with the names of it in the plural."""

from __future__ import annotations

from playground.shapes.scene import COLOURS, SHAPES, SIZES, Item, Scene

Counted = tuple[str, list[Item]]  # in the plural, and those that there are


def plural(name: str) -> str:
    """Return a noun's plural."""
    return name + "es" if name.endswith("s") else name + "s"


def count_options(scene: Scene) -> list[Counted]:
    """Return all that one attribute, or none, says to count."""
    options: list[Counted] = [("objects", list(scene.shapes))]
    options += [(plural(n), [i for i in scene.shapes if i.name == n]) for n in SHAPES]
    options += [(f"{c} objects", [i for i in scene.shapes if i.colour == c]) for c in COLOURS]
    return options + [(f"{s} objects", [i for i in scene.shapes if i.size == s]) for s in SIZES]


def count_two_options(scene: Scene) -> list[Counted]:
    """Return all that two attributes say to count."""
    options = [(f"{c} {plural(n)}", [i for i in scene.shapes if i.colour == c and i.name == n]) for c, n in scene.pairs]
    options += [
        (f"{s} {plural(n)}", [i for i in scene.shapes if i.size == s and i.name == n]) for s in SIZES for n in SHAPES
    ]
    return options + [
        (f"{s} {c} objects", [i for i in scene.shapes if i.size == s and i.colour == c]) for s in SIZES for c in COLOURS
    ]
