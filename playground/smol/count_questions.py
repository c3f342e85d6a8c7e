"""Questions of how many there are, and which there are more of."""

from __future__ import annotations

import random

from playground.shapes.counting import count_options, count_two_options, plural
from playground.shapes.scene import COLOURS, SHAPES, Item, Scene
from playground.smol.asked import Asked, yes_no
from playground.smol.things import counted, matching, there_are
from playground.smol.wordings import THINGS


def count(rng: random.Random, scene: Scene) -> Asked:
    """How many stars, red objects, large objects, or objects at all?"""
    return _count(rng, "count", count_options(scene))


def count_two(rng: random.Random, scene: Scene) -> Asked:
    """Counting by two attributes at once."""
    return _count(rng, "count_two", count_two_options(scene))


def _count(rng: random.Random, kind: str, options: list[tuple[str, list[Item]]]) -> Asked:
    numbers = sorted({len(found) for _, found in options})
    wanted = rng.choice(numbers)
    names, _ = rng.choice([o for o in options if len(o[1]) == wanted])
    names = names.replace("objects", f"{rng.choice(THINGS)}s")
    full = f"There {'is' if wanted == 1 else 'are'} {wanted or 'no'} {_one(names) if wanted == 1 else names}."
    return Asked(kind, "count", {"xs": names}, str(wanted), full)


def _one(names: str) -> str:
    """Return the singular of the last word: "red crosses" -> "red cross"."""
    head, _, noun = names.rpartition(" ")
    singular = next((name for name in (*SHAPES, *THINGS) if plural(name) == noun), noun)
    return f"{head} {singular}".strip()


def _numbers(rng: random.Random, scene: Scene) -> tuple[tuple[str, int], tuple[str, int]] | None:
    """Two kinds of things and how many there are of each, at least one of the first or of the second."""
    if rng.random() < 0.5:
        a, b = rng.choice(scene.shapes).name, rng.choice(SHAPES)
    else:
        a, b = f"{rng.choice(scene.shapes).colour} object", f"{rng.choice(COLOURS)} object"
    if a == b:
        return None
    pair = (a, len(matching(scene, a))), (b, len(matching(scene, b)))
    return pair if rng.random() < 0.5 else (pair[1], pair[0])


def compare(rng: random.Random, scene: Scene) -> Asked | None:
    """Are there more stars than circles?"""
    found = _numbers(rng, scene)
    if found is None or (found[0][1] == found[1][1] and rng.random() < 0.5):
        return None
    (a, m), (b, n) = found
    full = f"{yes_no(m > n).capitalize()}, there {'is' if m == 1 else 'are'} {counted(m, a)} and {counted(n, b)}."
    return Asked("compare", "compare", {"xs": plural(a), "ys": plural(b)}, yes_no(m > n), full)


def more(rng: random.Random, scene: Scene) -> Asked | None:
    """Which are there more of, stars or circles?"""
    found = _numbers(rng, scene)
    if found is None or found[0][1] == found[1][1]:
        return None
    (a, m), (b, n) = found
    larger = plural(a if m > n else b)
    full = f"{there_are(m, a)} and {counted(n, b)}, so there are more {larger}."
    return Asked("compare", "more", {"xs": plural(a), "ys": plural(b)}, larger, full)
